/** The part of varve.v1 that looks after the store: usage, pruning, leases, events. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { type MeasuredUsage, measureUsage, type UsageTotal } from "../images/disk-usage.js";
import { prune } from "../images/prune.js";
import { isDanglingName } from "../images/reference.js";
import { checkStore } from "./check/check-store.js";
import type { CheckOptions, CheckSummary, StoreFault } from "./check/faults.js";
import type { Core } from "./core.js";
import { eventStream, toEvent } from "./event-stream.js";
import type {
  CheckStoreRequest,
  CheckStoreResponseSchema,
  DiskUsageResponseSchema,
  EventSchema,
  EventsRequest,
  Varve,
} from "./gen/varve/v1/varve_pb.js";
import type { CallContext, Handlers } from "./grpc-adapter.js";
import { toImage, toLease, toProgress, toView } from "./messages.js";
import { withProgress } from "./progress-stream.js";
import { createLease, listLeases, removeLease } from "./use-cases/leases.js";

type StoreMethods =
  | "diskUsage"
  | "prune"
  | "checkStore"
  | "createLease"
  | "listLeases"
  | "removeLease"
  | "events";

/** Handlers of these methods. */
export function storeHandlers(core: Core): Pick<Handlers<typeof Varve>, StoreMethods> {
  return {
    diskUsage: () => diskUsage(core),
    prune: async ({ all, filters, dryRun }) => {
      const report = await prune(core, { all, filters, dryRun });
      return {
        images: report.images.map(({ id, references }) => ({
          id,
          references: references.filter((name) => !isDanglingName(name)),
        })),
        blobs: report.blobs,
        snapshots: report.snapshots,
        buildSteps: BigInt(report.buildSteps),
        reclaimedBytes: BigInt(report.bytes),
      };
    },
    checkStore: (request, context) => check(core, request, context),
    createLease: async (request) => {
      const lifetimeSeconds = Number(request.lifetimeSeconds);
      return { lease: toLease(await createLease(core, { ...request, lifetimeSeconds })) };
    },
    listLeases: () => ({ leases: listLeases(core).map(toLease) }),
    removeLease: ({ id }) => {
      removeLease(core, id);
      return {};
    },
    events: (request, context) => events(core, request, context),
  };
}

async function* events(
  core: Core,
  request: EventsRequest,
  { signal }: CallContext,
): AsyncGenerator<MessageInitShape<typeof EventSchema>> {
  for await (const event of eventStream(core.events, { ...request, signal })) yield toEvent(event);
}

async function* check(
  core: Core,
  { verifyContent, repair }: CheckStoreRequest,
  context: CallContext,
): AsyncGenerator<MessageInitShape<typeof CheckStoreResponseSchema>> {
  const { signal } = context;
  const faults: StoreFault[] = [];
  const onFault = (fault: StoreFault) => faults.push(fault);
  const work = (onProgress: CheckOptions["onProgress"] & object) =>
    checkStore(core, { verifyContent, repair, signal, onFault, onProgress });
  for await (const item of withProgress(work, context)) {
    for (const fault of faults.splice(0)) yield { fault: toStoreFault(fault) };
    if ("progress" in item) yield { progress: toProgress(item.progress) };
    else yield { summary: toCheckSummary(item.result) };
  }
}

function toStoreFault({ isRepaired: repaired, ...fault }: StoreFault) {
  return { ...fault, repaired };
}

function toCheckSummary(summary: CheckSummary) {
  const { blobs, snapshots, images, views, verifiedBytes, unverified } = summary;
  return {
    blobs: BigInt(blobs),
    snapshots: BigInt(snapshots),
    images: BigInt(images),
    views: BigInt(views),
    verifiedBytes: BigInt(verifiedBytes),
    unverified: [...unverified],
  };
}

async function diskUsage(core: Core): Promise<MessageInitShape<typeof DiskUsageResponseSchema>> {
  const usage = await measureUsage(core.images, core.garbage);
  const { views } = core;
  const measured = await Promise.all(
    views.list().map(async (view) => ({ view, usage: await views.usage(view.id) })),
  );
  const rows = measured.map((one) => ({ ...one, mounted: views.isMounted(one.view) }));
  const bytesOf = (some: typeof rows) => some.reduce((sum, row) => sum + row.usage.bytes, 0);
  const idle = rows.filter((row) => !row.mounted);
  return {
    images: toTotal(usage.images),
    snapshots: toTotal(usage.snapshots),
    buildCache: toTotal(usage.buildCache),
    views: toTotal({
      count: rows.length,
      active: rows.length - idle.length,
      bytes: bytesOf(rows),
      reclaimableBytes: bytesOf(idle),
    }),
    imageUsages: usage.imageUsages.map(toImageUsage),
    viewUsages: rows.map(({ view, mounted, usage: written }) =>
      toView(view, {
        mounted,
        upperDir: views.upperDir(view),
        ioInUse: views.ioInUse(view),
        usage: written,
      }),
    ),
  };
}

function toTotal({ count, active, bytes, reclaimableBytes }: UsageTotal) {
  return {
    count: BigInt(count),
    active: BigInt(active),
    bytes: BigInt(bytes),
    reclaimableBytes: BigInt(reclaimableBytes),
  };
}

function toImageUsage(usage: MeasuredUsage["imageUsages"][number]) {
  return {
    image: toImage(usage.image),
    contentBytes: BigInt(usage.contentBytes),
    unpackedBytes: BigInt(usage.unpackedBytes),
    sharedBytes: BigInt(usage.sharedBytes),
    uniqueBytes: BigInt(usage.uniqueBytes),
    views: [...usage.views],
    inUse: usage.isInUse,
  };
}
