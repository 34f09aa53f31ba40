/** Pulls that a kubelet asks for. */

import type { Digest } from "../../content/digest.js";
import { normalizeReference, parseReference, repositoryOf } from "../../images/reference.js";
import { UnavailableError } from "../../system/errors.js";
import type { Core } from "../core.js";
import { StatusError } from "../errors.js";
import type { AuthConfig } from "../gen/runtime/v1/image_pb.js";
import { Status } from "../status.js";
import { type PulledImage, pullImage } from "../use-cases/pull-image.js";
import type { CriParts } from "./image-service.js";
import { pullCredentials } from "./pull-auth.js";

// Kubelets compare the beginning of the message, which they see bare only with the status UNKNOWN.
const REGISTRY_UNAVAILABLE = "RegistryUnavailable";

/**
 * Pulls an image and gives it, beside the name that was asked for, that of its digest: when the tag
 * moves on, the image is still there under that one until the kubelet removes it. When this resolves,
 * containerd knows the image.
 *
 * @returns the image's ID
 * @throws StatusError the registry cannot be reached; else as `pullImage` of the use cases
 */
export async function pullForKubelet(
  { core, publisher }: CriParts,
  o: { name: string; auth: AuthConfig | undefined; signal: AbortSignal },
): Promise<Digest> {
  const reference = normalizeReference(o.name);
  const { id } = await pull(core, o, reference);
  await nameByDigest(core, reference);
  await publisher?.publish(id, o.signal);
  return id;
}

async function pull(
  core: Core,
  o: { auth: AuthConfig | undefined; signal: AbortSignal },
  reference: string,
): Promise<PulledImage> {
  const credentials = pullCredentials(o.auth, parseReference(reference).domain);
  try {
    return await pullImage(core, {
      reference,
      platforms: [],
      allPlatforms: false,
      unpack: true,
      policy: "always",
      access: { ...(credentials === undefined ? {} : { credentials }), environment: process.env },
      signal: o.signal,
    });
  } catch (error) {
    if (!(error instanceof UnavailableError)) throw error;
    const message = `${REGISTRY_UNAVAILABLE}: ${error.message}`;
    throw new StatusError(Status.UNKNOWN, message, error);
  }
}

async function nameByDigest(core: Core, reference: string): Promise<void> {
  const row = core.database.references.get(reference);
  // Somebody has removed it in this very moment.
  if (row === undefined) return;
  const byDigest = `${repositoryOf(parseReference(reference))}@${row.target.digest}`;
  if (core.database.references.get(byDigest) === undefined) {
    await core.images.create(byDigest, row.target);
  }
}
