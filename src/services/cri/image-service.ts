/**
 * Kubernetes' image service over our image store. Kubelets and crictl are its clients; what they expect
 * goes beyond the interface's text in places, which the comments here name.
 */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ImageRecord } from "../../images/image-record.js";
import { nowNs } from "../../metadata/clock.js";
import { InvalidArgumentError, NotFoundError } from "../../system/errors.js";
import type { ImagePublisher } from "../containerd/image-publisher.js";
import type { Core } from "../core.js";
import type { ImageSchema, ImageService } from "../gen/runtime/v1/image_pb.js";
import type { Handlers } from "../grpc-adapter.js";
import { storeUsage } from "../use-cases/store-usage.js";
import { pullForKubelet } from "./pull-image.js";
import { removeEverywhere } from "./remove-image.js";

type ImageMessage = MessageInitShape<typeof ImageSchema>;

// Some hundred bytes each: far from the message limit.
const STREAM_BATCH = 500;
// Kubernetes keeps user IDs in 64 bits; larger "numbers" are names that nobody has.
const MAX_UID = 2n ** 63n - 1n;

/** What the image service works on. */
export interface CriParts {
  readonly core: Core;
  /** Tells the containerd that runs the images; absent: nobody has to be told. */
  readonly publisher: ImagePublisher | undefined;
}

/** Handlers of runtime.v1.ImageService. */
export function criImageHandlers(parts: CriParts): Handlers<typeof ImageService> {
  const { core } = parts;
  return {
    listImages: async ({ filter }) => ({ images: await list(core, filter?.image?.image ?? "") }),
    streamImages: async function* ({ filter }) {
      const images = await list(core, filter?.image?.image ?? "");
      for (let start = 0; start < images.length; start += STREAM_BATCH) {
        yield { images: images.slice(start, start + STREAM_BATCH) };
      }
    },
    imageStatus: async ({ image, verbose }) => {
      const name = requireName(image?.image, "image status");
      const found = await find(core, name);
      if (found === undefined) return {};
      const info = verbose ? { info: JSON.stringify(await describe(core, found)) } : {};
      return { image: toMessage(found), info };
    },
    pullImage: async ({ image, auth }, { signal }) => {
      const name = requireName(image?.image, "pull image");
      return { imageRef: await pullForKubelet(parts, { name, auth, signal }) };
    },
    removeImage: async ({ image }) => {
      await removeEverywhere(parts, requireName(image?.image, "remove image"));
      return {};
    },
    imageFsInfo: () => ({ imageFilesystems: [filesystem(core)] }),
  };
}

function requireName(name: string | undefined, operation: string): string {
  if (name !== undefined && name !== "") return name;
  throw new InvalidArgumentError(`${operation}: no image is named`);
}

async function list(core: Core, filter: string): Promise<ImageMessage[]> {
  if (filter === "") return (await core.images.list()).filter(isListed(core)).map(toMessage);
  const image = await find(core, filter);
  return image === undefined ? [] : [toMessage(image)];
}

/**
 * An image that only a view still uses is none for Kubernetes: it has been removed, and could not be
 * removed again.
 */
function isListed(core: Core): (image: ImageRecord) => boolean {
  return ({ repoTags, repoDigests, digest }) =>
    repoTags.length + repoDigests.length > 0 ||
    core.database.references.listByTarget(digest).length > 0;
}

async function find(core: Core, name: string): Promise<ImageRecord | undefined> {
  try {
    const image = await core.images.get(name);
    return isListed(core)(image) ? image : undefined;
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
}

function toMessage(image: ImageRecord): ImageMessage {
  const [user = ""] = image.user.split(":");
  const isNumber = /^[0-9]+$/.test(user) && BigInt(user) <= MAX_UID;
  return {
    id: image.id,
    repoTags: [...image.repoTags],
    repoDigests: [...image.repoDigests],
    size: BigInt(image.size),
    ...(isNumber ? { uid: { value: BigInt(user) } } : { username: user }),
    pinned: image.pinned,
  };
}

/** What `crictl inspecti` shows. */
async function describe(core: Core, { id }: ImageRecord) {
  const { chainIds, configBytes } = await core.images.resolve(id);
  return {
    chainID: chainIds.at(-1) ?? "",
    imageSpec: JSON.parse(configBytes.toString("utf8")) as unknown,
  };
}

/** Kubelets look the mount point up by themselves, so it has to be a path on the disk in question. */
function filesystem(core: Core) {
  const { bytes, inodes } = storeUsage(core.database);
  return {
    timestamp: nowNs(),
    fsId: { mountpoint: core.paths.root },
    usedBytes: { value: BigInt(bytes) },
    inodesUsed: { value: BigInt(inodes) },
  };
}
