/** The view half of varve.v1: requests in, messages out. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ViewRow } from "../metadata/view-table.js";
import type { Change } from "../snapshots/layer-tasks.js";
import { toBuffer } from "../system/bytes.js";
import { CancelledError, NotFoundError } from "../system/errors.js";
import { parseIdMaps } from "../views/id-maps.js";
import { parseIoMode } from "../views/io-mode.js";
import { parseRestartPolicy } from "../views/restart-policy.js";
import { ownersOnly } from "./caller.js";
import type { Core } from "./core.js";
import {
  type CommitViewRequest,
  type CommitViewResponseSchema,
  type DiffViewResponseSchema,
  Change_Kind as Kind,
  type MountViewRequest,
  type MountViewResponseSchema,
  type Varve,
} from "./gen/varve/v1/varve_pb.js";
import type { CallContext, Handlers } from "./grpc-adapter.js";
import { toCommitted, toProgress, toView } from "./messages.js";
import { withProgress } from "./progress-stream.js";
import { toAccess } from "./registry-service.js";
import { commitView } from "./use-cases/commit-view.js";
import { createBundle } from "./use-cases/create-bundle.js";
import { mountView } from "./use-cases/mount-view.js";
import { parsePolicy } from "./use-cases/pull-image.js";

type ViewMethods =
  | "mountView"
  | "listViews"
  | "inspectView"
  | "unmountView"
  | "removeView"
  | "diffView"
  | "commitView"
  | "createBundle";

/** Handlers of the view methods. */
export function viewHandlers(core: Core): Pick<Handlers<typeof Varve>, ViewMethods> {
  const { views } = core;
  return {
    mountView: (request, context) => mount(core, request, context),
    diffView: (request, context) => diff(core, request.name, context),
    commitView: (request, context) => commit(core, request, context),
    listViews: async ({ sizes }) => ({ views: await list(core, sizes) }),
    inspectView: async ({ name }) => ({ view: await message(core, views.get(name), true) }),
    unmountView: async ({ name, force }) => {
      await views.unmount(name, force);
      return {};
    },
    removeView: async ({ name, force }) => {
      await views.remove(name, force);
      return {};
    },
    createBundle: async (request, { caller }) => ({
      configPath: await createBundle(core, caller, request),
    }),
  };
}

async function list(core: Core, sizes: boolean) {
  const listed = core.views.list().map((view) =>
    message(core, view, sizes).catch((error: unknown) => {
      // Removed while its files were counted.
      if (error instanceof NotFoundError) return undefined;
      throw error;
    }),
  );
  return (await Promise.all(listed)).filter((view) => view !== undefined);
}

async function message(core: Core, view: ViewRow, withUsage: boolean) {
  return toView(view, {
    mounted: core.views.isMounted(view),
    upperDir: core.views.upperDir(view),
    ioInUse: core.views.ioInUse(view),
    usage: withUsage ? await usage(core, view) : undefined,
  });
}

/** @throws NotFoundError the view was removed, perhaps while its files were counted */
async function usage({ views }: Core, { id }: ViewRow) {
  try {
    return await views.usage(id);
  } catch (error) {
    views.get(id);
    throw error;
  }
}

async function* mount(
  core: Core,
  request: MountViewRequest,
  context: CallContext,
): AsyncGenerator<MessageInitShape<typeof MountViewResponseSchema>> {
  const { signal, caller } = context;
  const { image, name, target, readOnly, platform } = request;
  const pull = parsePolicy(request.pull, "never");
  if (target !== "") {
    ownersOnly(caller, `mount on ${target}`, "leave the target out: the daemon chooses one");
  }
  const access = toAccess(request.access, caller);
  const idMaps = parseIdMaps(request.uidMaps, request.gidMaps);
  const wishes = {
    idMaps,
    io: parseIoMode(request.io),
    restart: parseRestartPolicy(request.restart),
  };
  const options = {
    image,
    name,
    target,
    readOnly,
    platform,
    pull,
    access,
    ...wishes,
    signal,
    isForGuest: !caller.isOwner,
  };
  const work = withProgress((onProgress) => mountView(core, { ...options, onProgress }), context);
  for await (const item of work) {
    if ("progress" in item) yield { progress: toProgress(item.progress) };
    else yield { view: await message(core, item.result, false) };
  }
}

async function* commit(
  core: Core,
  request: CommitViewRequest,
  context: CallContext,
): AsyncGenerator<MessageInitShape<typeof CommitViewResponseSchema>> {
  const { signal } = context;
  const { sourceDateEpoch } = request;
  const options = {
    ...request,
    pause: !request.noPause,
    signal,
    sourceDateEpoch: sourceDateEpoch === undefined ? undefined : Number(sourceDateEpoch),
  };
  const work = withProgress((onProgress) => commitView(core, { ...options, onProgress }), context);
  for await (const item of work) {
    if ("progress" in item) {
      yield { progress: toProgress(item.progress) };
      continue;
    }
    yield { image: toCommitted(item.result) };
  }
}

const KINDS = { A: Kind.ADDED, C: Kind.CHANGED, D: Kind.DELETED } as const;

/** One message for each batch. The view is locked while its changes are listed, not while they are read. */
async function* diff(
  core: Core,
  name: string,
  { signal }: CallContext,
): AsyncGenerator<MessageInitShape<typeof DiffViewResponseSchema>> {
  const batches: (readonly Change[])[] = [];
  await core.views.changes(name, (changes) => batches.push(changes), signal);
  for (const batch of batches) {
    if (signal.aborted) throw new CancelledError(`diff view ${name}: cancelled`);
    yield {
      changes: batch.map(({ kind, path }) => ({ kind: KINDS[kind], path: toBuffer(path) })),
    };
  }
}
