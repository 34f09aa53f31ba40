/** Unpacking an image by name. Use cases join several rooms; they know no protobuf. */

import type { Digest } from "../../content/digest.js";
import type { ResolvedImage } from "../../images/image-store.js";
import type { UnpackOptions } from "../../snapshots/unpacker.js";
import type { Core } from "../core.js";
import { withLease } from "./transient-lease.js";

/** A layer blob's label with its diff ID; containerd's. */
export const UNCOMPRESSED_LABEL = "containerd.io/uncompressed";

/** An image with all its layers unpacked. */
export interface UnpackedImage {
  readonly image: ResolvedImage;
  /** Undefined for an image without layers. */
  readonly chainId: Digest | undefined;
}

/**
 * Unpacks the layers of an image, then runs `work` while nothing of the image can be collected, even
 * if its last name is removed meanwhile.
 *
 * @param platform "os/arch[/variant]"; empty: the host's
 * @throws NotFoundError, InvalidArgumentError no such image or platform
 * @throws whatever `Unpacker.unpack` throws
 */
export async function unpackImage<R>(
  core: Core,
  o: { reference: string; platform: string } & UnpackOptions,
  work: (unpacked: UnpackedImage) => Promise<R>,
): Promise<R> {
  const image = await core.images.resolve(o.reference, o.platform === "" ? undefined : o.platform);
  return unpackResolved(core, image, o, work);
}

/** The same for an image that is resolved already, by its manifest for example. */
export async function unpackResolved<R>(
  core: Core,
  image: ResolvedImage,
  o: UnpackOptions,
  work: (unpacked: UnpackedImage) => Promise<R>,
): Promise<R> {
  // The target too: who cleans up looks at what names point to.
  const documents = [image.manifestDescriptor.digest, image.target.digest].map(
    (id) => ({ type: "content", id }) as const,
  );
  return withLease(core.database, documents, async () => {
    core.images.touch(image.id);
    const layers = image.layers.map((descriptor, position) => {
      const diffId = image.diffIds[position]!;
      return { descriptor, diffId, isKnown: () => isKnown(core, descriptor.digest, diffId) };
    });
    const chainId = await core.unpacker.unpack(layers, o);
    labelDiffIds(core, image);
    return work({ image, chainId });
  });
}

/** Whether the blob's label says, from when it was made or unpacked here, that it is this tar. */
function isKnown({ content }: Core, digest: Digest, diffId: Digest): boolean {
  return content.has(digest) && content.info(digest).labels[UNCOMPRESSED_LABEL] === diffId;
}

/**
 * Notes on layers' blobs which tar they hold, and on unpacked layers which blob they came from, so
 * that nobody has to inflate or to guess to know.
 */
export function labelDiffIds(
  core: Core,
  image: Pick<ResolvedImage, "layers" | "diffIds" | "chainIds">,
): void {
  const { content, database, snapshots } = core;
  const digests = image.layers.map(({ digest }) => digest);
  // An image may have a hundred layers, and each by itself would wait for the disk; mostly all is noted.
  database.transaction(() => {
    const blobOf = snapshots.blobsOf(image.chainIds);
    // Unpacked layers may be without their blobs.
    const diffIdOf = database.blobs.label(digests, UNCOMPRESSED_LABEL);
    digests.forEach((digest, position) => {
      const chainId = image.chainIds[position]!;
      if (blobOf.get(chainId) !== digest) snapshots.setBlob(chainId, digest);
      const diffId = image.diffIds[position]!;
      if (!diffIdOf.has(digest) || diffIdOf.get(digest) === diffId) return;
      content.setLabels(digest, { ...content.info(digest).labels, [UNCOMPRESSED_LABEL]: diffId });
    });
  });
}
