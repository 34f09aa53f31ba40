/** Pulling: an image from a registry into the stores, unpacked while its layers come in. */

import type { ResolvedImage } from "../../images/image-store.js";
import { isPlainlyId, normalizeReference } from "../../images/reference.js";
import {
  BaseError,
  CancelledError,
  InvalidArgumentError,
  NotFoundError,
} from "../../system/errors.js";
import type { Core } from "../core.js";
import { forgetKept } from "./kept-layers.js";
import { Pull, type PulledImage, type PullRequest } from "./pull-run.js";
import { fullNames } from "./short-names.js";
import { withLease } from "./transient-lease.js";
import { unpackResolved } from "./unpack-image.js";

export type { PulledImage } from "./pull-run.js";

/** When to ask a registry. */
export type PullPolicy = "always" | "missing" | "never";

/** @throws InvalidArgumentError no known policy; "" is `otherwise` */
export function parsePolicy(text: string, otherwise: PullPolicy): PullPolicy {
  if (text === "") return otherwise;
  if (text === "always" || text === "missing" || text === "never") return text;
  throw new InvalidArgumentError(
    `pull policy ${JSON.stringify(text)}: choose always, missing or never`,
  );
}

/** A pull, and what else its callers say. */
type PullWithPolicy = PullRequest & {
  readonly policy: PullPolicy;
  /** Keeps what is pulled for as long as it lasts; without one nothing but the name does. */
  readonly lease?: string;
};

/**
 * Pulls. The name appears only when everything is here; after a failure or an interruption, what
 * was fetched is kept for a day and not fetched again. Of several names that a short one may mean,
 * the first that can be had is pulled.
 *
 * @throws NotFoundError, PermissionDeniedError, UnavailableError as the registry answers
 * @throws CorruptDataError, UnsupportedError the image is damaged, or none
 * @throws CancelledError
 */
export async function pullImage(core: Core, request: PullWithPolicy): Promise<PulledImage> {
  const names = fullNames(request.reference, request.access).map(normalizeReference);
  const local = await findLocal(core, names, request);
  if (local !== undefined) {
    core.images.touch(local.id);
    return local;
  }
  const failures: BaseError[] = [];
  for (const name of names) {
    try {
      return await pullNamed(core, request, name);
    } catch (error) {
      if (!(error instanceof BaseError) || error instanceof CancelledError) throw error;
      failures.push(error);
    }
  }
  if (failures.length === 1) throw failures[0];
  const reasons = failures.map((failure) => failure.message).join("; ");
  throw new BaseError(failures[0]!.code, `pull ${request.reference}: ${reasons}`);
}

async function pullNamed(core: Core, request: PullWithPolicy, name: string): Promise<PulledImage> {
  const pull = new Pull(core, request, name);
  const run = async (lease: string) => {
    try {
      const pulled = await pull.run(lease);
      forgetKept(core.database, name);
      core.events.publish("image", "pull", pulled.id, { name });
      return pulled;
    } catch (error) {
      if (request.signal?.aborted !== true || error instanceof CancelledError) throw error;
      throw new CancelledError(`pull ${name}: cancelled`, { cause: error });
    }
  };
  return await (request.lease === undefined
    ? withLease(core.database, [], run)
    : run(request.lease));
}

/** The image as it is here under one of its names, when the policy is content with that. */
async function findLocal(
  core: Core,
  names: readonly string[],
  request: PullWithPolicy,
): Promise<PulledImage | undefined> {
  if (request.policy === "always") return undefined;
  const [platform = ""] = request.platforms;
  const found = await firstHere(core, [request.reference, ...names], platform);
  if (found === undefined && request.policy === "missing") return undefined;
  const image = found ?? (await core.images.resolve(request.reference, platform));
  const isWhole = image.layers.every((layer) => core.content.has(layer.digest));
  const isUnpacked = image.chainIds.every((chainId) => core.snapshots.has(chainId));
  if (!isWhole && !isUnpacked && request.policy === "missing") return undefined;
  if (request.unpack) await unpackResolved(core, image, request, async () => {});
  return {
    reference: image.reference,
    id: image.id,
    digest: image.target.digest,
    upToDate: true,
  };
}

/**
 * Finds the image that is about to be used, and pulls it first: always, or when no image here has
 * that name, reference or ID. What cannot be a name is not asked for.
 *
 * @param o with a lease, which from now on keeps the image, whoever removes its name or cleans up
 * @throws NotFoundError it is not here, and cannot be had; else as `pullImage`
 */
export async function pullForUse(
  core: Core,
  o: Omit<PullRequest, "platforms" | "allPlatforms" | "unpack"> & {
    readonly platform: string;
    readonly pull: PullPolicy;
    readonly lease: string;
  },
): Promise<ResolvedImage> {
  const { pull: policy, platform, reference, lease } = o;
  const isId = isPlainlyId(reference);
  if (isId || policy !== "always") {
    const found =
      (await firstHere(core, [reference], platform, lease)) ??
      (isId ? undefined : await firstHere(core, fullNames(reference, o.access), platform, lease));
    if (found !== undefined) return found;
    // Says what is missing.
    if (isId || policy === "never") return await core.images.resolve(reference, platform);
  }
  const request = { ...o, platforms: platform === "" ? [] : [platform], allPlatforms: false };
  let pulled: PulledImage;
  try {
    pulled = await pullImage(core, { ...request, unpack: true, policy: "always" });
  } catch (error) {
    if (policy === "always" || !(error instanceof BaseError)) throw error;
    if (error instanceof CancelledError || error instanceof InvalidArgumentError) throw error;
    const message = `image ${reference}: not found here, and not pulled: ${error.message}`;
    throw new BaseError(error.code, message, { cause: error });
  }
  return await core.images.resolve(pulled.reference, platform);
}

/** @param lease keeps what is found */
async function firstHere(
  core: Core,
  names: readonly string[],
  platform: string,
  lease?: string,
): Promise<ResolvedImage | undefined> {
  for (const name of names) {
    try {
      const image = await core.images.resolve(name, platform);
      if (lease === undefined || isKept(core, image, lease)) return image;
    } catch (error) {
      if (!(error instanceof NotFoundError)) throw error;
    }
  }
  return undefined;
}

/** False when a collection was faster. */
function isKept(core: Core, image: ResolvedImage, lease: string): boolean {
  const documents = [image.target.digest, image.manifestDescriptor.digest];
  return core.database.lazyTransaction(() =>
    documents.every((digest) => core.content.protect(digest, lease)),
  );
}

/**
 * What an image is, without its layers. Asks the registry as the policy says; what is fetched is kept
 * only until the next collection, and no name is made.
 *
 * @throws as `pullImage`
 */
export async function describeImage<R>(
  core: Core,
  o: Pick<PullRequest, "access" | "signal"> & {
    readonly reference: string;
    /** Empty: the host's. */
    readonly platform: string;
    readonly policy: PullPolicy;
  },
  work: (image: ResolvedImage) => Promise<R>,
): Promise<R> {
  const { policy, platform } = o;
  const isAsked = policy === "always" && !isPlainlyId(o.reference);
  if (!isAsked) {
    try {
      return await work(await core.images.resolve(o.reference, platform));
    } catch (error) {
      const isAbsent = error instanceof NotFoundError;
      if (!isAbsent || policy === "never" || isPlainlyId(o.reference)) throw error;
    }
  }
  const platforms = platform === "" ? [] : [platform];
  const request = { ...o, platforms, allPlatforms: false, unpack: false };
  const pull = new Pull(core, request, normalizeReference(o.reference));
  return await withLease(core.database, [], async (lease) => work(await pull.describe(lease)));
}
