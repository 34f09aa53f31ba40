/** Pulling: an image from a registry into the stores, unpacked while its layers come in. */

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
import { withLease } from "./transient-lease.js";
import { unpackImage } from "./unpack-image.js";

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

/**
 * Pulls. The name appears only when everything is here; after a failure or an interruption, what
 * was fetched is kept for a day and not fetched again.
 *
 * @throws NotFoundError, PermissionDeniedError, UnavailableError as the registry answers
 * @throws CorruptDataError, UnsupportedError the image is damaged, or none
 * @throws CancelledError
 */
export async function pullImage(
  core: Core,
  request: PullRequest & { readonly policy: PullPolicy },
): Promise<PulledImage> {
  const reference = normalizeReference(request.reference);
  const local = await findLocal(core, reference, request);
  if (local !== undefined) {
    core.images.touch(local.id);
    return local;
  }
  const pull = new Pull(core, request, reference);
  return await withLease(core.database, [], async (lease) => {
    try {
      const pulled = await pull.run(lease);
      forgetKept(core.database, reference);
      core.events.publish("image", "pull", pulled.id, { name: reference });
      return pulled;
    } catch (error) {
      if (request.signal?.aborted !== true || error instanceof CancelledError) throw error;
      throw new CancelledError(`pull ${reference}: cancelled`, { cause: error });
    }
  });
}

/** The image as it is here, when the policy is content with that. */
async function findLocal(
  core: Core,
  reference: string,
  request: PullRequest & { readonly policy: PullPolicy },
): Promise<PulledImage | undefined> {
  if (request.policy === "always") return undefined;
  try {
    const [platform] = request.platforms;
    const image = await core.images.resolve(reference, platform);
    const isWhole = image.layers.every((layer) => core.content.has(layer.digest));
    const isUnpacked = image.chainIds.every((chainId) => core.snapshots.has(chainId));
    if (!isWhole && !isUnpacked && request.policy === "missing") return undefined;
    if (request.unpack) {
      await unpackImage(core, { ...request, platform: platform ?? "", reference }, async () => {});
    }
    return { reference, id: image.id, digest: image.target.digest, upToDate: true };
  } catch (error) {
    const isAbsent = error instanceof NotFoundError;
    if (!isAbsent || request.policy === "never") throw error;
    return undefined;
  }
}

/**
 * Pulls an image that is about to be used: always, or when no image here has that name, reference
 * or ID. What cannot be a name is not asked for.
 *
 * @throws NotFoundError it is not here, and cannot be had; else as `pullImage`
 */
export async function pullForUse(
  core: Core,
  o: Omit<PullRequest, "platforms" | "allPlatforms" | "unpack"> & {
    readonly platform: string;
    readonly pull: PullPolicy;
  },
): Promise<void> {
  const { pull: policy, platform, reference } = o;
  if (policy === "never" || isPlainlyId(reference)) return;
  if (policy === "missing" && (await isHere(core, reference, platform))) return;
  const request = { ...o, platforms: platform === "" ? [] : [platform], allPlatforms: false };
  try {
    await pullImage(core, { ...request, unpack: true, policy: "always" });
  } catch (error) {
    if (policy === "always" || !(error instanceof BaseError)) throw error;
    if (error instanceof CancelledError || error instanceof InvalidArgumentError) throw error;
    const message = `image ${reference}: not found here, and not pulled: ${error.message}`;
    throw new BaseError(error.code, message, { cause: error });
  }
}

async function isHere(core: Core, reference: string, platform: string): Promise<boolean> {
  try {
    await core.images.resolve(reference, platform);
    return true;
  } catch (error) {
    if (error instanceof NotFoundError) return false;
    throw error;
  }
}
