/** The image half of varve.v1: requests in, messages out. */

import path from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { isDigest } from "../content/digest.js";
import { imageHistory, inspectImage } from "../images/history.js";
import { type LoadedImage, loadImages } from "../images/load.js";
import { formatPlatform } from "../images/platform.js";
import { type SaveFormat, saveImages, streamImages } from "../images/save.js";
import { InvalidArgumentError } from "../system/errors.js";
import { type Caller, ownersOnly } from "./caller.js";
import { readAsGuest, writeAsGuest } from "./caller-files.js";
import type { Core } from "./core.js";
import type {
  InspectImageRequest,
  InspectImageResponseSchema,
  LoadImagesOptions,
  LoadImagesRequest,
  LoadImagesResponseSchema,
  SaveImagesRequest,
  SaveImagesResponseSchema,
  SnapshotSchema,
  UnpackImageRequest,
  UnpackImageResponseSchema,
  Varve,
} from "./gen/varve/v1/varve_pb.js";
import type { CallContext, Handlers } from "./grpc-adapter.js";
import {
  parseTimestamp,
  toDescriptor,
  toImage,
  toProgress,
  toTimestamp,
  withoutDangling,
} from "./messages.js";
import { withProgress } from "./progress-stream.js";
import { toAccess } from "./registry-service.js";
import { describeImage, parsePolicy } from "./use-cases/pull-image.js";
import { type UnpackedImage, unpackImage } from "./use-cases/unpack-image.js";

type ImageMethods =
  | "loadImages"
  | "saveImages"
  | "listImages"
  | "inspectImage"
  | "inspectSnapshot"
  | "imageHistory"
  | "tagImage"
  | "removeImage"
  | "pinImage"
  | "unpackImage";

// Well under the message limit.
const SAVE_CHUNK_BYTES = 1024 * 1024;

/** Handlers of the image methods. */
export function imageHandlers(core: Core): Pick<Handlers<typeof Varve>, ImageMethods> {
  const { images } = core;
  return {
    loadImages: (requests, context) => load(core, requests, context),
    saveImages: (request, context) => save(core, request, context),
    unpackImage: (request, context) => unpack(core, request, context),
    listImages: async ({ filters }) => ({ images: (await images.list(filters)).map(toImage) }),
    inspectImage: (request, context) => inspect(core, request, context),
    inspectSnapshot: ({ chainId }) => ({ snapshot: toSnapshot(core, chainId) }),
    imageHistory: (request) => history(core, request.reference),
    tagImage: async ({ source, target }) => ({ reference: await images.tag(source, target) }),
    pinImage: async ({ reference, unpin }) => ({
      references: (await images.setPinned(reference, !unpin)).map(withoutDangling),
    }),
    removeImage: async ({ reference, force }) => {
      const removed = await images.remove(reference, { force });
      const swept = await core.garbage.run();
      const deleted = new Set([...removed.deleted, ...swept.snapshots, ...swept.blobs]);
      return { untagged: [...removed.untagged], deleted: [...deleted] };
    },
  };
}

async function inspect(
  core: Core,
  request: InspectImageRequest,
  { signal, caller }: CallContext,
): Promise<MessageInitShape<typeof InspectImageResponseSchema>> {
  const { reference, platform } = request;
  const policy = parsePolicy(request.pull, "never");
  const access = toAccess(request.access, caller);
  return describeImage(core, { reference, platform, policy, access, signal }, async (resolved) => {
    const found = await inspectImage(core.images, resolved);
    const chainId = resolved.chainIds.at(-1);
    const directories = found.isUnpacked ? core.snapshots.layerDirs(chainId) : [];
    return {
      image: toImage(found.image),
      manifest: found.manifest,
      config: found.config,
      layers: found.layers.map(toDescriptor),
      diffIds: [...found.diffIds],
      chainIds: [...found.chainIds],
      target: toDescriptor(resolved.target),
      manifestDescriptor: toDescriptor(resolved.manifestDescriptor),
      configDescriptor: toDescriptor(resolved.configDescriptor),
      platform: formatPlatform(resolved.platform),
      platforms: found.platforms.map((one) => ({
        platform: one.platform === undefined ? "" : formatPlatform(one.platform),
        manifest: toDescriptor(one.manifest),
        ...(one.config === undefined ? {} : { config: toDescriptor(one.config) }),
        complete: one.isComplete,
      })),
      lowerDirs: directories.toReversed(),
    };
  });
}

/** @throws NotFoundError no unpacked layer has this chain ID */
function toSnapshot(core: Core, text: string): MessageInitShape<typeof SnapshotSchema> {
  if (!isDigest(text)) throw new InvalidArgumentError(`snapshot ${text}: want a chain ID`);
  const row = core.snapshots.get(text);
  const blob = core.snapshots.blobOf(text);
  return {
    chainId: row.name,
    parent: row.parent ?? "",
    diffId: row.diffId ?? "",
    blob: blob ?? "",
    blobPresent: blob !== undefined && core.content.has(blob),
    bytes: BigInt(row.sizeBytes),
    inodes: BigInt(row.inodes),
    created: toTimestamp(row.createdNs),
    directory: core.snapshots.treeOf(text),
  };
}

async function history(core: Core, reference: string) {
  const { id, entries } = await imageHistory(core.images, reference);
  return {
    id,
    entries: entries.map((entry) => {
      const created = parseTimestamp(entry.created);
      return {
        ...(created === undefined ? {} : { created }),
        createdBy: entry.createdBy,
        author: entry.author,
        comment: entry.comment,
        emptyLayer: entry.emptyLayer,
        size: BigInt(entry.size),
        layerDigest: entry.layerDigest ?? "",
      };
    }),
  };
}

async function* load(
  core: Core,
  requests: AsyncIterable<LoadImagesRequest>,
  context: CallContext,
): AsyncGenerator<MessageInitShape<typeof LoadImagesResponseSchema>> {
  const { signal, caller } = context;
  const iterator = requests[Symbol.asyncIterator]();
  const first = await iterator.next();
  const options = first.done === true ? undefined : first.value.options;
  if (options === undefined) {
    throw new InvalidArgumentError("load images: the first message must carry the options");
  }
  const source = options.path === "" ? chunksOf(iterator) : await sourceAt(caller, options.path);
  const loading = { ...platformsOf(options), signal, collectGarbage: () => core.garbage.run() };
  const work = withProgress(
    (onProgress) => loadImages(core.images, source, { ...loading, onProgress }),
    context,
  );
  for await (const item of work) {
    if ("progress" in item) yield { progress: toProgress(item.progress) };
    else for (const loaded of item.result) yield { loaded: tellLoaded(core, loaded) };
  }
}

function tellLoaded(core: Core, loaded: LoadedImage): LoadedImage {
  const { id, reference } = loaded;
  core.events.publish("image", "load", id, reference === undefined ? {} : { name: reference });
  return loaded;
}

function platformsOf(options: LoadImagesOptions) {
  const { platforms, allPlatforms } = options;
  return { allPlatforms, ...(platforms.length === 0 ? {} : { platforms }) };
}

async function* chunksOf(requests: AsyncIterator<LoadImagesRequest>): AsyncGenerator<Uint8Array> {
  for (let next = await requests.next(); next.done !== true; next = await requests.next()) {
    yield next.value.chunk;
  }
}

/** @throws PermissionDeniedError, InvalidArgumentError a guest's path */
async function sourceAt(caller: Caller, text: string): Promise<string | AsyncIterable<Uint8Array>> {
  const file = checkPath("load images", text);
  return caller.isOwner ? file : readAsGuest(caller, `load ${file}`, file);
}

function checkPath(operation: string, file: string): string {
  if (path.isAbsolute(file)) return file;
  throw new InvalidArgumentError(`${operation}: ${file} must be an absolute path`);
}

function checkFormat(format: string): SaveFormat {
  if (format === "") return "oci-archive";
  if (format === "oci-archive" || format === "docker-archive" || format === "oci-dir") {
    return format;
  }
  throw new InvalidArgumentError(
    `save images: unknown format ${JSON.stringify(format)}; choose oci-archive, docker-archive or oci-dir`,
  );
}

async function* save(
  core: Core,
  request: SaveImagesRequest,
  context: CallContext,
): AsyncGenerator<MessageInitShape<typeof SaveImagesResponseSchema>> {
  const { signal, caller } = context;
  const { references, platforms } = request;
  if (references.length === 0) throw new InvalidArgumentError("save images: name at least one");
  const options = {
    format: checkFormat(request.format),
    ...(platforms.length === 0 ? {} : { platforms }),
    signal,
  };
  if (request.path === "") {
    for await (const chunk of streamImages(core.images, references, options)) {
      for (let start = 0; start < chunk.length; start += SAVE_CHUNK_BYTES) {
        yield { chunk: chunk.subarray(start, start + SAVE_CHUNK_BYTES) };
      }
    }
    return await tellSaved(core, references);
  }
  const file = checkPath("save images", request.path);
  if (!caller.isOwner) {
    await saveForGuest(core, caller, references, file, options);
    return await tellSaved(core, references);
  }
  const work = withProgress(
    (onProgress) => saveImages(core.images, references, file, { ...options, onProgress }),
    context,
  );
  for await (const item of work) {
    if ("progress" in item) yield { progress: toProgress(item.progress) };
  }
  await tellSaved(core, references);
}

async function saveForGuest(
  core: Core,
  caller: Caller,
  references: readonly string[],
  file: string,
  options: Parameters<typeof streamImages>[2],
): Promise<void> {
  const what = `save ${file}`;
  if (options.format === "oci-dir") {
    ownersOnly(caller, what, "save an archive and unpack it: varve save IMAGE | tar -C DIR -x");
  }
  await writeAsGuest(caller, what, file, streamImages(core.images, references, options));
}

async function tellSaved(core: Core, references: readonly string[]): Promise<void> {
  const found = await Promise.allSettled(references.map((text) => core.images.get(text)));
  for (const [position, reference] of references.entries()) {
    const outcome = found[position]!;
    // It may have been removed meanwhile; it was saved all the same.
    if (outcome.status === "rejected") continue;
    const image = outcome.value;
    core.images.touch(image.id);
    core.events.publish("image", "save", image.id, { name: reference });
  }
}

async function* unpack(
  core: Core,
  request: UnpackImageRequest,
  context: CallContext,
): AsyncGenerator<MessageInitShape<typeof UnpackImageResponseSchema>> {
  const { signal } = context;
  const { reference, platform } = request;
  const unpacked = async ({ image, chainId }: UnpackedImage) => {
    core.events.publish("image", "unpack", image.id, { name: image.reference });
    return chainId ?? "";
  };
  const work = withProgress(
    (onProgress) => unpackImage(core, { reference, platform, onProgress, signal }, unpacked),
    context,
  );
  for await (const item of work) {
    if ("progress" in item) yield { progress: toProgress(item.progress) };
    else yield { chainId: item.result };
  }
}
