/** Pushing: an image from the stores to a registry, content first and names last. */

import type { Descriptor } from "../../content/descriptor.js";
import type { Digest } from "../../content/digest.js";
import { MAX_MANIFEST_BYTES } from "../../images/limits.js";
import { type PushPlan, planPush } from "../../images/push.js";
import { isPlainlyId, normalizeReference, parseReference } from "../../images/reference.js";
import type { RegistryAccess } from "../../registry/access.js";
import type { Repository } from "../../registry/repository.js";
import { rememberSource, sourcesOf } from "../../registry/source-labels.js";
import { hasManifest, uploadBlob, uploadManifest } from "../../registry/upload.js";
import { CancelledError, InvalidArgumentError, NotFoundError } from "../../system/errors.js";
import { faultPoint } from "../../system/fault-points.js";
import type { Core } from "../core.js";
import type { ProgressEvent } from "../progress-stream.js";
import { withLease } from "./transient-lease.js";

/** What to push, and where to. */
export interface PushRequest {
  readonly reference: string;
  /** Empty: the reference itself. */
  readonly destination: string;
  /** Empty: the whole image, as far as it is here. */
  readonly platform: string;
  readonly allPlatforms: boolean;
  readonly access: RegistryAccess;
  readonly onProgress?: ((event: ProgressEvent) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A pushed image. */
export interface PushedImage {
  /** Normalised. */
  readonly reference: string;
  readonly digest: Digest;
  /** Bytes of the manifest or index. */
  readonly size: number;
  readonly notice?: string;
}

/**
 * Pushes. What the repository has already is not sent; the name changes with the last request.
 *
 * @throws NotFoundError no such image, or content of it is not here
 * @throws InvalidArgumentError no name to push to
 * @throws PermissionDeniedError, UnavailableError as the registry answers; CancelledError
 */
export async function pushImage(core: Core, request: PushRequest): Promise<PushedImage> {
  const { platform, allPlatforms, access } = request;
  const destination = destinationOf(request);
  const { domain, path, tag, digest } = parseReference(destination);
  const { id } = await core.images.resolve(request.reference, platform);
  const plan = await planPush(core.images, request.reference, { platform, allPlatforms });
  if (digest !== undefined && digest !== plan.target.digest) {
    throw new InvalidArgumentError(
      `push to ${destination}: what is pushed has the digest ${plan.target.digest}`,
    );
  }
  const repository = core.registries.repository({ domain, path }, access);
  const resource = { type: "content", id: plan.target.digest } as const;
  await withLease(core.database, [resource], async () => {
    await sendBlobs(core, repository, plan, request);
    faultPoint("push.blobs");
    await checkAbsent(repository, plan, request);
    await sendManifests(core, repository, plan, tag ?? plan.target.digest, request);
  });
  core.registries.forget(domain, path);
  core.images.touch(id);
  core.events.publish("image", "push", id, { name: destination });
  const { notice, target } = plan;
  const pushed = { reference: destination, digest: target.digest, size: target.size };
  return { ...pushed, ...(notice === undefined ? {} : { notice }) };
}

function destinationOf(request: PushRequest): string {
  if (request.destination !== "") return normalizeReference(request.destination);
  if (isPlainlyId(request.reference)) {
    throw new InvalidArgumentError(
      `push ${request.reference}: an ID does not say where to; give a destination after it`,
    );
  }
  return normalizeReference(request.reference);
}

async function sendBlobs(
  core: Core,
  repository: Repository,
  plan: PushPlan,
  request: PushRequest,
): Promise<void> {
  // One failure ends the others, too.
  const controller = new AbortController();
  const abort = () => controller.abort();
  request.signal?.addEventListener("abort", abort, { once: true });
  if (request.signal?.aborted === true) abort();
  let failure: { error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    abort();
  };
  try {
    await Promise.all(
      plan.blobs.map((blob) =>
        core.registries
          .withSlot(() => sendBlob(core, repository, blob, request, controller.signal))
          .catch(fail),
      ),
    );
  } finally {
    request.signal?.removeEventListener("abort", abort);
  }
  if (failure !== undefined) throw failure.error;
}

async function sendBlob(
  core: Core,
  repository: Repository,
  descriptor: Descriptor,
  request: PushRequest,
  signal: AbortSignal,
): Promise<void> {
  const { digest, size: total } = descriptor;
  if (signal.aborted) throw new CancelledError(`push blob ${digest}: cancelled`);
  const report = (action: string, current: number) =>
    request.onProgress?.({ id: digest, action, current, total });
  report("waiting", 0);
  const outcome = await uploadBlob({
    repository,
    descriptor,
    file: core.content.path(digest),
    sources: sourcesOf(core.content, digest, repository.name),
    signal,
    report: (current) => report("uploading", current),
  });
  faultPoint("push.blob");
  rememberSource(core.content, digest, repository.name);
  report(outcome === "sent" ? "done" : outcome, total);
}

/** An index may be pushed without some of its manifests only where they are already. */
async function checkAbsent(
  repository: Repository,
  plan: PushPlan,
  request: PushRequest,
): Promise<void> {
  for (const descriptor of plan.absent) {
    if (await hasManifest(repository, descriptor, request.signal)) continue;
    throw new NotFoundError(
      `push ${request.reference}: manifest ${descriptor.digest} of its index is neither here nor in ` +
        "the registry; pull the image with --all-platforms first",
    );
  }
}

async function sendManifests(
  core: Core,
  repository: Repository,
  plan: PushPlan,
  reference: string,
  request: PushRequest,
): Promise<void> {
  for (const { digest, mediaType } of plan.manifests) {
    if (request.signal?.aborted === true) {
      throw new CancelledError(`push ${request.reference}: cancelled`);
    }
    const bytes = await core.content.readBlob(digest, MAX_MANIFEST_BYTES);
    const name = digest === plan.target.digest ? reference : digest;
    await uploadManifest(repository, name, { mediaType, bytes }, request.signal);
    faultPoint("push.manifest");
  }
}
