/** The run of one pull: resolve, fetch what is missing, unpack beside it, then give it its name. */

import type { Descriptor } from "../../content/descriptor.js";
import type { Digest } from "../../content/digest.js";
import { resolveTarget } from "../../images/image-resolver.js";
import type { ResolvedImage } from "../../images/image-store.js";
import type { PlatformChoice } from "../../images/load-oci.js";
import { isIndexType, isManifestType } from "../../images/media-types.js";
import { parsePlatform } from "../../images/platform.js";
import { type ImageSource, pullContent } from "../../images/pull.js";
import { parseReference } from "../../images/reference.js";
import type { ReferenceTarget } from "../../metadata/reference-table.js";
import type { RegistryAccess } from "../../registry/access.js";
import type { Repository } from "../../registry/repository.js";
import { CancelledError } from "../../system/errors.js";
import { faultPoint } from "../../system/fault-points.js";
import type { Core } from "../core.js";
import type { ProgressEvent } from "../progress-stream.js";
import { keepLayer } from "./kept-layers.js";
import { labelDiffIds, unpackImage } from "./unpack-image.js";

/** What to pull. */
export interface PullRequest {
  readonly reference: string;
  /** Empty: the host's. */
  readonly platforms: readonly string[];
  readonly allPlatforms: boolean;
  readonly unpack: boolean;
  readonly access: RegistryAccess;
  readonly onProgress?: ((event: ProgressEvent) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A pulled image. */
export interface PulledImage {
  /** Normalised. */
  readonly reference: string;
  readonly id: Digest;
  readonly digest: Digest;
  /** The reference meant this already, and all of it was here. */
  readonly upToDate: boolean;
}

/** One pull under way; `run` it once. */
export class Pull {
  readonly #core: Core;
  readonly #request: PullRequest;
  readonly #reference: string;
  readonly #repository: Repository;
  readonly #choice: PlatformChoice;
  /** Ends everything when one part fails, or the caller wants it. */
  readonly #controller = new AbortController();
  readonly #arrivals = new Arrivals();
  #unpacking: Promise<unknown> = Promise.resolve();
  #fetched = 0;

  constructor(core: Core, request: PullRequest, reference: string) {
    const { domain, path, digest } = parseReference(reference);
    this.#core = core;
    this.#request = request;
    this.#reference = reference;
    this.#repository = core.registries.repository({ domain, path }, request.access, {
      isByDigest: digest !== undefined,
    });
    this.#choice = {
      platforms: request.platforms.filter((text) => text !== "").map(parsePlatform),
      all: request.allPlatforms,
      preferred: core.images.platform,
    };
  }

  run(lease: string): Promise<PulledImage> {
    return this.#cancellable(() => this.#run(lease));
  }

  /** Fetches only what says what the image is: manifest and config of the first platform. */
  describe(lease: string): Promise<ResolvedImage> {
    return this.#cancellable(async () => {
      const { content, images } = this.#core;
      const target = await this.#resolve(lease);
      const source: ImageSource = {
        fetchDocument: (descriptor) => this.#fetchDocument(descriptor, lease),
        fetchLayer: async () => undefined,
      };
      const what = `pull ${this.#reference}`;
      await pullContent({ content, source, target, choice: this.#choice, what });
      const wanted = this.#choice.platforms[0];
      const { platform: preferred } = images;
      return await resolveTarget({ content, target, wanted, preferred, name: this.#reference });
    });
  }

  async #cancellable<R>(work: () => Promise<R>): Promise<R> {
    const { signal } = this.#request;
    const abort = () => this.#controller.abort();
    signal?.addEventListener("abort", abort, { once: true });
    try {
      if (signal?.aborted === true) abort();
      return await work();
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  async #run(lease: string): Promise<PulledImage> {
    const { images } = this.#core;
    const reference = this.#reference;
    const before = this.#core.database.references.get(reference)?.target.digest;
    const target = await this.#resolve(lease);
    faultPoint("pull.resolved");
    await this.#fetch(target, lease);
    faultPoint("pull.fetched");
    if (this.#controller.signal.aborted) throw new CancelledError(`pull ${reference}: cancelled`);
    const { id } = await images.create(reference, target);
    faultPoint("pull.named");
    if (this.#request.unpack && this.#choice.all) {
      await unpackImage(this.#core, { ...this.#request, reference, platform: "" }, async () => {});
    }
    const upToDate = before === target.digest && this.#fetched === 0;
    return { reference, id, digest: target.digest, upToDate };
  }

  /** What the reference means: known without asking when it is a digest that is here. */
  async #resolve(lease: string): Promise<ReferenceTarget> {
    const { content, registries } = this.#core;
    const { tag, digest } = parseReference(this.#reference);
    const report = (action: string) =>
      this.#request.onProgress?.({ id: this.#reference, action, current: 0, total: 0 });
    if (digest !== undefined && content.protect(digest, lease)) {
      const { size, mediaType } = content.info(digest);
      if (mediaType !== undefined) return { digest, size, mediaType };
    }
    report("resolving");
    const { descriptor, bytes } = await registries.resolve(
      this.#repository,
      digest ?? tag ?? "latest",
      this.#request.access,
      this.#controller.signal,
    );
    if (bytes !== undefined && isDocument(descriptor)) await this.#store(descriptor, bytes, lease);
    report("done");
    return descriptor;
  }

  async #fetch(target: ReferenceTarget, lease: string): Promise<void> {
    const source: ImageSource = {
      fetchDocument: (descriptor) => this.#fetchDocument(descriptor, lease),
      fetchLayer: (descriptor) => this.#fetchLayer(descriptor, lease),
    };
    const { content } = this.#core;
    const plan = { content, source, target, choice: this.#choice, what: `pull ${this.#reference}` };
    let failure: { error: unknown } | undefined;
    // The first failure is the one to report; what follows from it is only cancelled.
    const fail = (error: unknown) => {
      failure ??= { error };
      this.#controller.abort();
    };
    const onImage = (image: ResolvedImage) => {
      if (!this.#request.unpack || this.#choice.all) return;
      this.#unpacking = Promise.all([this.#unpacking, this.#unpack(image)]);
      this.#unpacking.catch(fail);
    };
    await pullContent({ ...plan, onImage }).catch(fail);
    await this.#unpacking.catch(fail);
    if (failure !== undefined) throw failure.error;
  }

  /** Starts with the layers that are here; the others join as they arrive. */
  async #unpack(image: ResolvedImage): Promise<void> {
    const layers = image.layers.map((descriptor, position) => ({
      descriptor,
      diffId: image.diffIds[position]!,
      arrival: this.#arrivals.of(descriptor.digest).promise,
    }));
    const { onProgress } = this.#request;
    await this.#core.unpacker.unpack(layers, { onProgress, signal: this.#controller.signal });
    labelDiffIds(this.#core, image);
  }

  async #fetchDocument(descriptor: Descriptor, lease: string): Promise<void> {
    if (this.#core.content.protect(descriptor.digest, lease)) return;
    this.#fetched++;
    const signal = this.#controller.signal;
    const { registries } = this.#core;
    if (!isDocument(descriptor)) {
      return await registries.fetch(descriptor, { repository: this.#repository, lease, signal });
    }
    const bytes = await this.#repository.manifest(descriptor, signal);
    await this.#store(descriptor, bytes, lease);
  }

  async #store(descriptor: Descriptor, bytes: Buffer, lease: string): Promise<void> {
    const { digest, mediaType } = descriptor;
    await this.#core.content.writeBlob(bytes, { expected: digest, mediaType, lease });
    faultPoint("pull.document");
  }

  async #fetchLayer(descriptor: Descriptor, lease: string): Promise<void> {
    const { content, registries } = this.#core;
    const { onProgress: tell } = this.#request;
    const isUnpacked = this.#request.unpack && !this.#choice.all;
    // A layer that is here has still to be unpacked: how that ends is the unpacker's to say.
    const isEnd = (event: ProgressEvent) => event.action === "done" || event.action === "exists";
    const onProgress = (event: ProgressEvent) =>
      isUnpacked && isEnd(event) ? undefined : tell?.(event);
    const arrival = this.#arrivals.of(descriptor.digest);
    if (!content.has(descriptor.digest)) this.#fetched++;
    const signal = this.#controller.signal;
    const options = { repository: this.#repository, lease, onProgress, signal };
    try {
      await registries.fetch(descriptor, options);
      keepLayer(this.#core.database, this.#reference, descriptor.digest);
      faultPoint("pull.layer");
      arrival.resolve();
    } catch (error) {
      arrival.reject(error);
      throw error;
    }
  }
}

function isDocument({ mediaType }: Descriptor): boolean {
  return isIndexType(mediaType) || isManifestType(mediaType);
}

interface Arrival {
  readonly promise: Promise<void>;
  resolve(): void;
  reject(error: unknown): void;
}

/** Lets the unpacker wait for layers that the fetch has not brought yet. */
class Arrivals {
  readonly #arrivals = new Map<Digest, Arrival>();

  of(digest: Digest): Arrival {
    const known = this.#arrivals.get(digest);
    if (known !== undefined) return known;
    let resolve: () => void = () => undefined;
    let reject: (error: unknown) => void = () => undefined;
    const promise = new Promise<void>((onResolve, onReject) => {
      resolve = onResolve;
      reject = onReject;
    });
    // Nobody waits for a layer that is unpacked already; its failure is the fetch's to report.
    promise.catch(() => undefined);
    const arrival = { promise, resolve, reject };
    this.#arrivals.set(digest, arrival);
    return arrival;
  }
}
