/** From our records to protobuf messages. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Descriptor } from "../content/descriptor.js";
import type { ImageRecord } from "../images/image-store.js";
import { isDanglingName } from "../images/reference.js";
import type { ViewRow } from "../metadata/view-table.js";
import { formatRanges, idMapsOf } from "../views/id-maps.js";
import type {
  CommittedImageSchema,
  DescriptorSchema,
  ImageSchema,
  LeaseSchema,
  ProgressSchema,
  ViewSchema,
} from "./gen/varve/v1/varve_pb.js";
import type { ProgressEvent } from "./progress-stream.js";
import type { CommitResult } from "./use-cases/commit-view.js";
import type { HeldLease } from "./use-cases/leases.js";

type TimestampInit = Pick<Timestamp, "seconds" | "nanos"> & {
  $typeName: "google.protobuf.Timestamp";
};

const NS_PER_SECOND = 1_000_000_000n;

/** Nanoseconds since 1970, exactly. */
export function toTimestamp(ns: bigint): TimestampInit {
  // Timestamp's nanos count forward, also before 1970.
  const nanos = ((ns % NS_PER_SECOND) + NS_PER_SECOND) % NS_PER_SECOND;
  return {
    $typeName: "google.protobuf.Timestamp",
    seconds: (ns - nanos) / NS_PER_SECOND,
    nanos: Number(nanos),
  };
}

/** RFC 3339 text with up to nine decimals; undefined for none or for text that is not a time. */
export function parseTimestamp(text: string | undefined): TimestampInit | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/i.exec(text ?? "");
  if (match === null) return undefined;
  const milliseconds = Date.parse(`${match[1]}${match[3]}`);
  if (Number.isNaN(milliseconds)) return undefined;
  const nanos = BigInt((match[2] ?? "").slice(0, 9).padEnd(9, "0"));
  return toTimestamp(BigInt(milliseconds) * 1_000_000n + nanos);
}

export function toProgress(event: ProgressEvent): MessageInitShape<typeof ProgressSchema> {
  const { id, action, current, total } = event;
  return { id, action, current: BigInt(Math.round(current)), total: BigInt(Math.round(total)) };
}

export function toDescriptor(
  descriptor: Pick<Descriptor, "mediaType" | "digest" | "size">,
): MessageInitShape<typeof DescriptorSchema> {
  const { mediaType, digest, size } = descriptor;
  return { mediaType, digest, size: BigInt(size) };
}

export function toImage(image: ImageRecord): MessageInitShape<typeof ImageSchema> {
  const created = parseTimestamp(image.created);
  return {
    id: image.id,
    repoTags: [...image.repoTags],
    repoDigests: [...image.repoDigests],
    digest: image.digest,
    mediaType: image.mediaType,
    ...(created === undefined ? {} : { created }),
    size: BigInt(image.size),
    os: image.platform.os,
    architecture: image.platform.architecture,
    variant: image.platform.variant ?? "",
    chainId: image.chainId ?? "",
    unpacked: image.unpacked,
    labels: { ...image.labels },
    pinned: image.pinned,
    pinnedReferences: image.pinnedReferences.map(withoutDangling),
    lastUsed: toTimestamp(image.lastUsedNs),
  };
}

/** The name of an image without a name is ours alone; to others it is docker's "<none>". */
export function withoutDangling(name: string): string {
  return isDanglingName(name) ? "<none>" : name;
}

export function toLease(held: HeldLease): MessageInitShape<typeof LeaseSchema> {
  const { id, createdNs, expiresNs, labels } = held.lease;
  return {
    id,
    created: toTimestamp(createdNs),
    ...(expiresNs === undefined ? {} : { expires: toTimestamp(expiresNs) }),
    labels: { ...labels },
    resources: held.resources.map((resource) => ({ ...resource })),
    transient: held.isTransient,
  };
}

/** A committed image, of a view or of a build's step. */
export function toCommitted(
  made: Omit<CommitResult, "descriptor"> & { readonly reference: string },
): MessageInitShape<typeof CommittedImageSchema> {
  const { id, digest, reference, layer, diffId, chainId, warnings } = made;
  return {
    ...{ id, digest, reference },
    diffId: diffId ?? "",
    chainId: chainId ?? "",
    warnings: [...warnings],
    ...(layer === undefined ? {} : { layer: toDescriptor(layer) }),
  };
}

/** What of a view is not in its row. */
export interface ViewState {
  readonly mounted: boolean;
  readonly upperDir: string | undefined;
  readonly ioInUse: string | undefined;
  readonly usage?: { readonly bytes: number; readonly inodes: number } | undefined;
}

export function toView(view: ViewRow, state: ViewState): MessageInitShape<typeof ViewSchema> {
  const maps = idMapsOf(view);
  return {
    id: view.id,
    name: view.name,
    image: view.image,
    imageId: view.imageId,
    chainId: view.chainId ?? "",
    readOnly: view.readOnly,
    mounted: state.mounted,
    target: view.target,
    created: toTimestamp(view.createdNs),
    upperBytes: BigInt(state.usage?.bytes ?? 0),
    upperInodes: BigInt(state.usage?.inodes ?? 0),
    upperDir: state.upperDir ?? "",
    io: view.io ?? "",
    ioInUse: state.ioInUse ?? "",
    restart: view.restart,
    uidMaps: formatRanges(maps?.uids ?? []),
    gidMaps: formatRanges(maps?.gids ?? []),
  };
}
