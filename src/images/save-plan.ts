/** What a saved archive will hold: decided before a byte is written. */

import type { Descriptor } from "../content/descriptor.js";
import { type Digest, digestOf } from "../content/digest.js";
import { InvalidArgumentError, NotFoundError } from "../system/errors.js";
import type { ResolvedImage } from "./image-record.js";
import type { ImageStore } from "./image-store.js";
import { MAX_MANIFEST_BYTES } from "./limits.js";
import { parseIndex, parseManifest } from "./manifest.js";
import { isIndexType, isManifestType, OCI_INDEX } from "./media-types.js";
import { isPlainlyId, parseReference, repositoryOf } from "./reference.js";

/** A file of the archive that is made here. */
export type PlannedDocument = { readonly path: string; readonly data: Buffer };

/** Everything that is to be written. */
export type SavePlan = {
  /** Entries for index.json, with their names. */
  readonly manifests: readonly Descriptor[];
  /** Blobs of the content store, sorted by digest. */
  readonly blobs: readonly { readonly digest: Digest; readonly size: number }[];
  /** Blobs that the store does not have: an index cut down to the wanted platforms. */
  readonly madeBlobs: ReadonlyMap<Digest, Buffer>;
  /** The images for docker's manifest.json. */
  readonly images: readonly { readonly image: ResolvedImage; readonly tags: readonly string[] }[];
};

type Blobs = Map<Digest, number>;

/** One reference's part of the plan. */
type PlannedImage = {
  readonly name: string | undefined;
  readonly top: Descriptor;
  readonly image: ResolvedImage;
};

const IMAGE_NAME = "io.containerd.image.name";
const REF_NAME = "org.opencontainers.image.ref.name";

/**
 * Plans an archive. An index is kept whole when all of it is here and no platform was asked for;
 * otherwise its one platform's manifest stands for it, or an index of the wanted ones.
 *
 * @throws NotFoundError no such image or platform, or a blob is not in the store
 * @throws InvalidArgumentError nothing to save
 */
export async function planSave(
  images: ImageStore,
  references: readonly string[],
  platforms: readonly string[],
): Promise<SavePlan> {
  if (references.length === 0) throw new InvalidArgumentError("save: name at least one image");
  const blobs: Blobs = new Map();
  const madeBlobs = new Map<Digest, Buffer>();
  const planned: PlannedImage[] = [];
  for (const reference of references) {
    planned.push(await planImage(images, reference, platforms, blobs, madeBlobs));
  }
  for (const digest of blobs.keys()) {
    if (images.content.has(digest)) continue;
    throw new NotFoundError(
      `save: blob ${digest} is not in the content store; load its image again`,
    );
  }
  return {
    manifests: nameManifests(planned),
    blobs: [...blobs]
      .map(([digest, size]) => ({ digest, size }))
      .sort((a, b) => (a.digest < b.digest ? -1 : 1)),
    madeBlobs,
    images: groupById(planned),
  };
}

async function planImage(
  images: ImageStore,
  reference: string,
  platforms: readonly string[],
  blobs: Blobs,
  madeBlobs: Map<Digest, Buffer>,
): Promise<PlannedImage> {
  const image = await images.resolve(reference, platforms[0]);
  const name = isPlainlyId(image.reference) ? undefined : image.reference;
  const { target } = image;
  if (platforms.length === 0) {
    const whole: Blobs = new Map();
    if (await addTree(images, target, whole)) {
      for (const [digest, size] of whole) blobs.set(digest, size);
      return {
        name,
        image,
        top: { ...target, ...platformField(image, isIndexType(target.mediaType)) },
      };
    }
  }
  const chosen = [image];
  for (const platform of platforms.slice(1)) chosen.push(await images.resolve(reference, platform));
  for (const one of chosen) {
    for (const blob of [one.manifestDescriptor, one.configDescriptor, ...one.layers]) {
      blobs.set(blob.digest, blob.size);
    }
  }
  const distinct = new Map(chosen.map((one) => [one.manifestDescriptor.digest, one]));
  if (distinct.size === 1) {
    const { mediaType, digest, size } = image.manifestDescriptor;
    return { name, image, top: { mediaType, digest, size, ...platformField(image, false) } };
  }
  return { name, image, top: await cutIndex(images, image, new Set(distinct.keys()), madeBlobs) };
}

/** The platform of a manifest, for tools that choose by it; nothing for an index. */
function platformField(
  image: ResolvedImage,
  isIndex: boolean,
): Pick<Descriptor, "platform"> | object {
  return isIndex ? {} : { platform: image.platform };
}

/** Collects everything below a target. @returns false when a part of it is not here */
async function addTree(images: ImageStore, descriptor: Descriptor, blobs: Blobs): Promise<boolean> {
  const { content } = images;
  if (!content.has(descriptor.digest)) return false;
  blobs.set(descriptor.digest, descriptor.size);
  const { mediaType, digest } = descriptor;
  const isIndex = isIndexType(mediaType);
  if (!isIndex && !isManifestType(mediaType)) return true;
  const data = await content.readBlob(digest, MAX_MANIFEST_BYTES);
  if (!isIndex) {
    const manifest = parseManifest(data, mediaType, `manifest ${digest}`);
    for (const blob of [manifest.config, ...manifest.layers]) {
      if (!content.has(blob.digest)) return false;
      blobs.set(blob.digest, blob.size);
    }
    return true;
  }
  for (const child of parseIndex(data, mediaType, `index ${digest}`).manifests) {
    if (!(await addTree(images, child, blobs))) return false;
  }
  return true;
}

/** The original index with only the wanted manifests; the same wish makes the same bytes. */
async function cutIndex(
  images: ImageStore,
  image: ResolvedImage,
  wanted: ReadonlySet<Digest>,
  madeBlobs: Map<Digest, Buffer>,
): Promise<Descriptor> {
  const { digest, mediaType } = image.target;
  const data = await images.content.readBlob(digest, MAX_MANIFEST_BYTES);
  const index = parseIndex(data, mediaType, `index ${digest}`);
  const manifests = index.manifests.filter((child) => wanted.has(child.digest));
  const cut = Buffer.from(JSON.stringify({ ...index.json, manifests }));
  madeBlobs.set(digestOf(cut), cut);
  return { mediaType, digest: digestOf(cut), size: cut.length };
}

/** Tools address an image in a layout by its tag; where two share it, only the full name tells. */
function nameManifests(planned: readonly PlannedImage[]): Descriptor[] {
  const tags = planned.map(({ name }) =>
    name === undefined ? undefined : parseReference(name).tag,
  );
  return planned.map(({ name, top }, position) => {
    const { platform, ...rest } = top;
    const tail = platform === undefined ? {} : { platform };
    if (name === undefined) return { ...rest, ...tail };
    const tag = tags[position];
    const isShared = tags.some((other, at) => at !== position && other === tag);
    const annotations: Record<string, string> = { [IMAGE_NAME]: name };
    if (tag !== undefined) annotations[REF_NAME] = isShared ? name : tag;
    return { ...rest, annotations, ...tail };
  });
}

function groupById(planned: readonly PlannedImage[]): SavePlan["images"] {
  const groups = new Map<string, { image: ResolvedImage; tags: string[] }>();
  for (const { name, image } of planned) {
    const group = groups.get(image.id) ?? { image, tags: [] };
    groups.set(image.id, group);
    if (name === undefined || parseReference(name).tag === undefined) continue;
    if (!group.tags.includes(name)) group.tags.push(name);
  }
  return [...groups.values()];
}

/** index.json and oci-layout. */
export function ociDocuments(manifests: readonly Descriptor[]): PlannedDocument[] {
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  return [
    { path: "oci-layout", data: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
    { path: "index.json", data: Buffer.from(JSON.stringify(index)) },
  ];
}

/**
 * docker's manifest.json and repositories, which point into the same blobs. Names stand in full:
 * docker shortens them itself, and podman would take a short one for its own "localhost/…".
 */
export function dockerDocuments(plan: SavePlan): PlannedDocument[] {
  const blobPath = (digest: Digest) => `blobs/${digest.replace(":", "/")}`;
  const manifest = plan.images.map(({ image, tags }) => ({
    Config: blobPath(image.id),
    RepoTags: tags.length === 0 ? null : tags,
    Layers: image.layers.map((layer) => blobPath(layer.digest)),
  }));
  const repositories: Record<string, Record<string, string>> = {};
  for (const { image, tags } of plan.images) {
    for (const name of tags) {
      const reference = parseReference(name);
      const repository = repositoryOf(reference);
      repositories[repository] ??= {};
      repositories[repository][reference.tag!] = (image.chainIds.at(-1) ?? image.id).slice(7);
    }
  }
  return [
    { path: "manifest.json", data: Buffer.from(JSON.stringify(manifest)) },
    { path: "repositories", data: Buffer.from(JSON.stringify(repositories)) },
  ];
}
