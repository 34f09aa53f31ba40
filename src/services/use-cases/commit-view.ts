/**
 * Committing: what was written in a view becomes a layer, and with the view's image a new image.
 *
 * This stands here, not in `images`, because it needs views and snapshots at work while the image
 * store below only deals in documents.
 */

import { rm } from "node:fs/promises";
import type { Descriptor } from "../../content/descriptor.js";
import type { Digest } from "../../content/digest.js";
import { buildCommit, type CommitOptions, commitTime } from "../../images/commit-config.js";
import { normalizeReference } from "../../images/reference.js";
import type { PackedLayer } from "../../layers/pack.js";
import type { ViewRow } from "../../metadata/view-table.js";
import type { PackEvent, UpperTask } from "../../snapshots/layer-tasks.js";
import { FailedPreconditionError, InvalidArgumentError } from "../../system/errors.js";
import { faultPoint } from "../../system/fault-points.js";
import type { ViewHold } from "../../views/view-hold.js";
import type { Core } from "../core.js";
import type { ProgressEvent } from "../progress-stream.js";
import { withLease } from "./transient-lease.js";
import { UNCOMPRESSED_LABEL } from "./unpack-image.js";

/** What to make of a view; empty strings mean "not given". */
export interface CommitRequest {
  readonly name: string;
  readonly author: string;
  readonly message: string;
  /** Docker's change instructions. */
  readonly changes: readonly string[];
  readonly compression: string;
  /** 0: the compression's own default. */
  readonly compressionLevel: number;
  /** Seconds since 1970. */
  readonly sourceDateEpoch: number | undefined;
  /** One layer with all that the view shows. */
  readonly squashAll: boolean;
  readonly omitHistory: boolean;
  /** Programs in the view wait to write until it has been read. */
  readonly pause: boolean;
  /** "oci" or "docker"; empty: as the base. */
  readonly format: string;
  /** KEY=VALUE. */
  readonly annotations: readonly string[];
  /** For the history, in place of the commit's own words. */
  readonly createdBy?: string;
  readonly onProgress: (event: ProgressEvent) => void;
  readonly signal: AbortSignal;
}

/** The image that was made. */
export interface CommitResult {
  readonly id: Digest;
  readonly digest: Digest;
  /** Of the manifest. */
  readonly descriptor: Descriptor;
  /** Absent when nothing had changed. */
  readonly layer: Descriptor | undefined;
  readonly diffId: Digest | undefined;
  readonly chainId: Digest | undefined;
  /** What was left out, changed while it was packed, or had to be assumed. */
  readonly warnings: readonly string[];
}

type FullLayer = Extract<PackedLayer, { empty: false }>;
type Compression = "gzip" | "zstd" | "none";

/**
 * Commits a view, mounted or not. The new layer becomes a snapshot when the image is first mounted,
 * like any other layer. After a failure nothing of it is left.
 *
 * @throws NotFoundError no such view
 * @throws InvalidArgumentError a bad reference, change instruction, compression, format or annotation
 * @throws FailedPreconditionError `squashAll` of a read-only view
 * @throws CancelledError
 */
export async function commitView(
  core: Core,
  request: CommitRequest & { readonly reference: string },
): Promise<CommitResult & { readonly reference: string }> {
  const reference = request.reference === "" ? "" : normalizeReference(request.reference);
  return commitUnnamed(core, request, async (made, view) => {
    await core.images.create(reference === "" ? undefined : reference, made.descriptor);
    const { name, image } = view;
    core.events.publish("view", "commit", view.id, { name, image, imageId: made.id, reference });
    return { ...made, reference };
  });
}

/**
 * The same without a name: `keep` takes the image over, before anybody can collect it.
 *
 * @throws as `commitView`
 */
export async function commitUnnamed<R>(
  core: Core,
  request: CommitRequest,
  keep: (made: CommitResult, view: ViewRow) => Promise<R>,
): Promise<R> {
  const compression = checkCompression(request.compression);
  return core.views.withUpper(request.name, async (view, upper, hold) => {
    const base = await core.images.resolveManifest(view.manifestDigest);
    // Bad instructions and times are found before minutes of packing.
    const { sourceDateEpoch } = request;
    const document = { ...documentOptions(request, compression), base };
    buildCommit({ ...document, created: commitTime({ base, sourceDateEpoch }) });
    if (request.squashAll && upper === undefined) {
      throw new FailedPreconditionError(
        `commit: view ${view.name} is read-only and cannot be squashed; mount its image writable`,
      );
    }
    const resources = [{ type: "content", id: view.manifestDigest }] as const;
    return withLease(core.database, resources, async (lease) => {
      core.images.touch(view.imageId);
      const parts = { compression, view, upper, hold, lease };
      const layer = await commitLayer(core, { ...request, ...parts });
      const made = await writeImage(core, { document, sourceDateEpoch, layer, lease });
      return keep(made, view);
    });
  });
}

/** What the request says of config and manifest. */
function documentOptions(
  request: CommitRequest,
  compression: Compression,
): Omit<CommitOptions, "base" | "layer"> {
  const { changes, author, message, omitHistory, squashAll } = request;
  const format = checkFormat(request.format);
  if (format === "docker" && compression === "zstd") {
    throw new InvalidArgumentError("commit: docker's format has no zstd layers; choose oci");
  }
  return {
    changes,
    omitHistory,
    isSquashed: squashAll,
    ...(format === undefined ? {} : { format }),
    annotations: parseAnnotations(request.annotations),
    ...(author === "" ? {} : { author }),
    ...(message === "" ? {} : { message }),
    ...(request.createdBy === undefined ? {} : { createdBy: request.createdBy }),
  };
}

function checkFormat(text: string): "oci" | "docker" | undefined {
  if (text === "") return undefined;
  if (text === "oci" || text === "docker") return text;
  throw new InvalidArgumentError(
    `commit: unknown format ${JSON.stringify(text)}; choose oci or docker`,
  );
}

function parseAnnotations(items: readonly string[]): Record<string, string> {
  const pairs = items.map((item): [string, string] => {
    const equals = item.indexOf("=");
    if (equals > 0) return [item.slice(0, equals), item.slice(equals + 1)];
    throw new InvalidArgumentError(`commit: annotation ${JSON.stringify(item)}: want KEY=VALUE`);
  });
  return Object.fromEntries(pairs);
}

/** The compression that a request names. @throws InvalidArgumentError */
export function checkCompression(text: string): Compression {
  if (text === "") return "gzip";
  if (text === "gzip" || text === "zstd" || text === "none") return text;
  throw new InvalidArgumentError(
    `commit: unknown compression ${JSON.stringify(text)}; choose gzip, zstd or none`,
  );
}

interface LayerRequest {
  readonly view: ViewRow;
  readonly upper: UpperTask | undefined;
  readonly hold: () => Promise<ViewHold>;
  readonly pause: boolean;
  readonly lease: string;
  readonly compression: Compression;
  readonly compressionLevel: number;
  readonly sourceDateEpoch: number | undefined;
  readonly squashAll: boolean;
  readonly onProgress: (event: ProgressEvent) => void;
  readonly signal: AbortSignal;
}

/** Packs what changed into the content store; undefined when nothing did. */
async function commitLayer(core: Core, o: LayerRequest): Promise<FullLayer | undefined> {
  if (o.upper === undefined) return undefined;
  const outputPath = core.content.newFile();
  try {
    const packed = await pack(core, o, o.upper, outputPath);
    if (packed.empty) return undefined;
    faultPoint("commit.packed");
    for (const warning of packed.warnings) core.log.warn(`commit view ${o.view.name}: ${warning}`);
    o.onProgress(progress(o.view, "writing", packed.size));
    const { digest, diffId, mediaType, size } = packed;
    const labels = { [UNCOMPRESSED_LABEL]: diffId };
    await core.content.adoptFile(outputPath, digest, size, { mediaType, lease: o.lease, labels });
    faultPoint("commit.layer");
    return packed;
  } finally {
    await rm(outputPath, { force: true });
  }
}

/** Packs the view as it is at one moment: its programs wait until it has been read. */
async function pack(
  core: Core,
  o: LayerRequest,
  upper: UpperTask,
  outputPath: string,
): Promise<PackedLayer> {
  const hold = o.pause ? await o.hold() : undefined;
  const level = o.compressionLevel === 0 ? undefined : o.compressionLevel;
  const task = {
    ...upper,
    outputPath,
    compression: o.compression,
    level,
    sourceDateEpoch: o.sourceDateEpoch,
    isWhole: o.squashAll,
    pause: hold?.pause,
  };
  const onEvent = (event: PackEvent) => {
    if (event !== "read") o.onProgress(progress(o.view, "packing", event));
    // What went wrong is thrown below.
    else hold?.release().catch(() => undefined);
  };
  let packed: PackedLayer;
  try {
    packed = await core.tasks.pack(task, onEvent, o.signal);
  } catch (error) {
    await hold?.release().catch(() => undefined);
    throw error;
  }
  await hold?.release();
  return packed;
}

/** What config and manifest are made of. */
export interface ImageRequest {
  readonly document: Omit<CommitOptions, "layer">;
  readonly layer: FullLayer | undefined;
  /** Keeps them until somebody else does. */
  readonly lease: string;
  readonly sourceDateEpoch: number | undefined;
}

/** Writes config and manifest. */
export async function writeImage(core: Core, o: ImageRequest): Promise<CommitResult> {
  const { layer, lease } = o;
  const layerDescriptor = layer && {
    digest: layer.digest,
    size: layer.size,
    mediaType: layer.mediaType,
  };
  const files = buildCommit({
    ...o.document,
    ...(layer && layerDescriptor
      ? { layer: { descriptor: layerDescriptor, diffId: layer.diffId } }
      : {}),
    created: commitTime({
      base: o.document.base,
      sourceDateEpoch: o.sourceDateEpoch,
      newestMtimeNs: layer && BigInt(layer.newestMtimeSec) * 1_000_000_000n,
    }),
  });
  const { configDescriptor, manifestDescriptor } = files;
  // Referred-to before referrer, so that every blob that is here is complete.
  await core.content.writeBlob(files.configBytes, {
    mediaType: configDescriptor.mediaType,
    lease,
  });
  faultPoint("commit.config");
  await core.content.writeBlob(files.manifestBytes, {
    mediaType: manifestDescriptor.mediaType,
    lease,
  });
  faultPoint("commit.manifest");
  return {
    id: files.id,
    digest: manifestDescriptor.digest,
    descriptor: manifestDescriptor,
    layer: layerDescriptor,
    diffId: layer?.diffId,
    chainId: files.chainId,
    warnings: [...(layer?.warnings ?? []), ...files.warnings],
  };
}

function progress(view: ViewRow, action: string, current: number): ProgressEvent {
  return { id: view.name, action, current, total: 0 };
}
