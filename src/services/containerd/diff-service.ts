/**
 * containerd's differ over our unpacker and packer. Blobs come from containerd's content store and go there.
 * What is not ours to do (mounts of other snapshotters, unknown media types) is answered UNIMPLEMENTED;
 * containerd then asks its own differ.
 */

import { createReadStream } from "node:fs";
import path from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Digest } from "../../content/digest.js";
import { type Compression, compressionOf } from "../../layers/compression.js";
import { LAYER_MEDIA_TYPE, LayerCompressor } from "../../layers/layer-compressor.js";
import { InvalidArgumentError, UnsupportedError } from "../../system/errors.js";
import type { HeldUpper } from "../../views/proxy-uppers.js";
import type {
  ApplyRequest,
  ApplyResponseSchema,
  Diff,
  DiffRequest,
  DiffResponseSchema,
} from "../gen/containerd/services/diff/v1/diff_pb.js";
import type { Mount } from "../gen/containerd/types/mount_pb.js";
import type { CallContext, Handlers } from "../grpc-adapter.js";
import { UNCOMPRESSED_LABEL } from "../use-cases/unpack-image.js";
import { applyToSnapshot, type Unpacking } from "./apply-layer.js";
import { type ContainerdClient, type Scope, scopeOf } from "./containerd-client.js";
import { withStoredBlob } from "./stored-blob.js";

const TAR = LAYER_MEDIA_TYPE.none;
const CHUNK_BYTES = 1024 * 1024;
// Two blocks of zeros: an archive without entries.
const EMPTY_TAR = Buffer.alloc(1024);

/** What the differ works with. */
export interface DifferParts extends Unpacking {
  readonly containerd: ContainerdClient;
}

/** Handlers of containerd.services.diff.v1. */
export function diffHandlers(parts: DifferParts): Handlers<typeof Diff> {
  return {
    apply: (request, context) => apply(parts, request, context),
    diff: (request, context) => diff(parts, request, context),
  };
}

/**
 * The caller's namespace, which containerd 1.7 does not pass on: then that of the snapshot.
 *
 * @throws UnsupportedError the mounts show no active snapshot of ours
 */
function scopeFor({ snapshots }: DifferParts, { header }: CallContext, mounts: Mount[]): Scope {
  const scope = scopeOf(header);
  if (scope !== undefined) return scope;
  // containerd's keys begin with namespace and number.
  const [, namespace] = /^([^/]+)\/[0-9]+\//.exec(snapshots.keyOf(mounts)) ?? [];
  if (namespace !== undefined) return { namespace };
  throw new InvalidArgumentError("the call says no namespace (containerd-namespace)");
}

async function apply(
  parts: DifferParts,
  request: ApplyRequest,
  context: CallContext,
): Promise<MessageInitShape<typeof ApplyResponseSchema>> {
  const { diff: layer, mounts, syncFs } = request;
  if (layer === undefined) throw new InvalidArgumentError("apply: no layer is named");
  const { mediaType, digest } = layer;
  const bytes = Number(layer.size);
  const scope = scopeFor(parts, context, mounts);
  const { signal } = context;
  const applied = await applyToSnapshot(parts, { mounts, mediaType, syncFs, signal }, (work) =>
    withStoredBlob(
      {
        ...{ containerd: parts.containerd, scope, digest, bytes, signal },
        withTemporary: (use) => parts.snapshots.withTemporary(use),
      },
      (blob) => work({ ...blob, mediaType, digest }),
    ),
  );
  const { diffId, tarBytes } = applied;
  return { applied: { mediaType: TAR, digest: diffId, size: BigInt(tarBytes) } };
}

async function diff(
  parts: DifferParts,
  request: DiffRequest,
  context: CallContext,
): Promise<MessageInitShape<typeof DiffResponseSchema>> {
  const { left, right, sourceDateEpoch } = request;
  const scope = scopeFor(parts, context, right);
  const mediaType = request.mediaType === "" ? LAYER_MEDIA_TYPE.gzip : request.mediaType;
  const compression = compressionOf(mediaType);
  const base = parts.snapshots.baseOf(left);
  return await parts.snapshots.withTemporary((directory) =>
    parts.snapshots.withUpper(right, async (upper) => {
      if (upper.parentId !== base) {
        throw new UnsupportedError(
          "diff: the left side is not what the right side was prepared on",
        );
      }
      const file = path.join(directory, "layer");
      const epoch = sourceDateEpoch === undefined ? undefined : Number(sourceDateEpoch.seconds);
      const packed = await pack(parts, upper, { file, compression, epoch }, context.signal);
      const { digest, size, diffId } = packed;
      const labels = { ...request.labels, [UNCOMPRESSED_LABEL]: diffId };
      const data = createReadStream(file, { highWaterMark: CHUNK_BYTES });
      const ref = request.ref === "" ? {} : { ref: request.ref };
      const content = { ...ref, digest, size, labels, data };
      // Without the caller's lease, the blob would be collected before the caller can refer to it.
      const leased = scope.lease === undefined ? await parts.containerd.lease(scope) : scope;
      await parts.containerd.writeContent(leased, content, context.signal);
      return { diff: { mediaType, digest, size: BigInt(size) } };
    }),
  );
}

interface PackOptions {
  readonly file: string;
  readonly compression: Compression;
  /** Seconds since 1970. */
  readonly epoch: number | undefined;
}

async function pack(
  { tasks }: DifferParts,
  upper: HeldUpper,
  { file, compression, epoch }: PackOptions,
  signal: AbortSignal,
): Promise<{ digest: Digest; diffId: Digest; size: number }> {
  const packed = await tasks.pack(
    {
      ...(await upper.lower()),
      ...{ upperDir: upper.upperDir, workDir: upper.workDir, privileged: true },
      ...{ outputPath: file, compression, level: undefined, sourceDateEpoch: epoch },
      ...{ isWhole: false, isTemporary: true, pause: undefined },
    },
    () => {},
    signal,
  );
  return packed.empty ? await emptyLayer(file, compression) : packed;
}

/** containerd's clients expect a blob also where nothing has changed. */
async function emptyLayer(file: string, compression: Compression) {
  const compressor = LayerCompressor.create({ outputPath: file, compression, isTemporary: true });
  try {
    await compressor.write(EMPTY_TAR);
    return await compressor.finish();
  } catch (error) {
    compressor.abort();
    throw error;
  }
}
