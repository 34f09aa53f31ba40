/** The daemon's access to all registries: what its calls share. */

import { createHash } from "node:crypto";
import { Semaphore } from "async-mutex";
import type { ContentStore } from "../content/content-store.js";
import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";
import { TRANSIENT_LABEL } from "../metadata/labels.js";
import { type FlightCrew, Flights, type Passage } from "../snapshots/flights.js";
import { CancelledError } from "../system/errors.js";
import type { RegistryAccess, RepositoryName } from "./access.js";
import { downloadBlob } from "./blob-download.js";
import type { SpareSlots } from "./blob-pieces.js";
import { DEFAULT_RETRY, MAX_CONCURRENT_BLOBS, type RetryPolicy } from "./limits.js";
import { Repository, type Resolved } from "./repository.js";
import { Transport } from "./transport.js";

/** How far a blob is. */
export interface BlobProgress {
  readonly id: string;
  readonly action: "waiting" | "downloading" | "verifying" | "done" | "exists";
  readonly current: number;
  readonly total: number;
}

/** What a fetch needs to know of its caller. */
export interface FetchOptions {
  readonly repository: Repository;
  /** Keeps the blob from garbage collection from the moment in which it is visible. */
  readonly lease: string;
  readonly onProgress?: ((event: BlobProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A tag's meaning is remembered for so long: the pulls of one build see one image. */
const RESOLVE_CACHE_MS = 5_000;

interface CachedResolve {
  readonly resolved: Resolved;
  readonly atMs: number;
}

/** One instance per daemon. */
export class Registries {
  readonly #content: ContentStore;
  readonly #database: Database;
  readonly #transport = new Transport();
  readonly #retry: RetryPolicy;
  readonly #slots = new Semaphore(MAX_CONCURRENT_BLOBS);
  readonly #spareSlots = spareSlots(this.#slots);
  readonly #downloads = new Flights<void, BlobProgress>();
  readonly #resolves = new Flights<Resolved, never>();
  readonly #resolved = new Map<string, CachedResolve>();
  /** The leases of those who wait for a download. */
  readonly #wanted = new Map<Digest, Set<string>>();

  constructor(o: { content: ContentStore; database: Database; retry?: Partial<RetryPolicy> }) {
    this.#content = o.content;
    this.#database = o.database;
    this.#retry = { ...DEFAULT_RETRY, ...o.retry };
  }

  /** @throws InvalidArgumentError, FailedPreconditionError as `hostsOf` */
  repository(
    name: RepositoryName,
    access: RegistryAccess,
    options: { wantsIdentity?: boolean; isByDigest?: boolean } = {},
  ): Repository {
    return new Repository(name, access, {
      transport: this.#transport,
      retry: this.#retry,
      ...options,
    });
  }

  /**
   * What a tag means now, or meant less than five seconds ago to a caller with the same rights. One
   * request is under way per reference and caller, however many ask.
   *
   * @throws as `Repository.resolve`
   */
  async resolve(
    repository: Repository,
    reference: string,
    access: RegistryAccess,
    signal?: AbortSignal,
  ): Promise<Resolved> {
    const { domain, path } = repository.name;
    const caller = createHash("sha256").update(JSON.stringify(access)).digest("hex");
    const key = JSON.stringify([domain, path, reference, caller]);
    this.#forgetOld();
    const known = this.#resolved.get(key);
    if (known !== undefined) return known.resolved;
    const passage = this.#resolves.board(key, async (crew) => {
      const resolved = await repository.resolve(reference, crew.signal);
      this.#resolved.set(key, { resolved, atMs: performance.now() });
      return resolved;
    });
    return await ride(passage, signal, `resolve ${domain}/${path}:${reference}`);
  }

  #forgetOld(): void {
    const now = performance.now();
    for (const [key, { atMs }] of this.#resolved) {
      if (now - atMs >= RESOLVE_CACHE_MS) this.#resolved.delete(key);
    }
  }

  /** Forgets what tags meant: a repository's after a push, a registry's after a log-in or -out. */
  forget(domain: string, path?: string): void {
    const prefix = JSON.stringify(path === undefined ? [domain] : [domain, path]).slice(0, -1);
    for (const key of this.#resolved.keys()) {
      if (key.startsWith(prefix)) this.#resolved.delete(key);
    }
  }

  /**
   * Brings a blob into the content store and under the caller's lease. Each digest is downloaded
   * once, however many pulls want it; the download goes on while one of them still does.
   *
   * @throws as `downloadBlob`
   */
  async fetch(descriptor: Descriptor, options: FetchOptions): Promise<void> {
    const { digest, size } = descriptor;
    const { lease, signal } = options;
    const what = `fetch blob ${digest}`;
    const report = (action: BlobProgress["action"], current: number) =>
      options.onProgress?.({ id: digest, action, current, total: size });
    if (this.#content.protect(digest, lease)) return report("exists", size);
    report("waiting", 0);
    for (;;) {
      if (isAborted(signal)) throw new CancelledError(`${what}: cancelled`);
      const starter: { isOwn: boolean } = { isOwn: false };
      this.#want(digest, lease);
      const passage = this.#downloads.board(
        digest,
        (crew) => {
          starter.isOwn = true;
          return this.#download(descriptor, options.repository, crew);
        },
        options.onProgress,
      );
      try {
        await ride(passage, signal, what);
      } catch (error) {
        // Another caller's download failed, perhaps for want of rights that this one has.
        if (starter.isOwn || isAborted(signal)) throw error;
        continue;
      } finally {
        this.#wanted.get(digest)?.delete(lease);
      }
      // A lease that came too late for the download's end; then a collection may have been first.
      if (this.#content.protect(digest, lease)) return report("done", size);
    }
  }

  #want(digest: Digest, lease: string): void {
    const leases = this.#wanted.get(digest);
    if (leases === undefined) this.#wanted.set(digest, new Set([lease]));
    else leases.add(lease);
  }

  async #download(
    descriptor: Descriptor,
    repository: Repository,
    crew: FlightCrew<BlobProgress>,
  ): Promise<void> {
    const { digest, size: total } = descriptor;
    const { leases } = this.#database;
    const own = this.#database.transaction(() =>
      leases.create({ labels: { [TRANSIENT_LABEL]: "fetch" } }),
    );
    try {
      await this.#slots.runExclusive(() =>
        downloadBlob({
          content: this.#content,
          repository,
          descriptor,
          lease: own.id,
          slots: this.#spareSlots,
          signal: crew.signal,
          report: (action, current) => crew.report({ id: digest, action, current, total }),
        }),
      );
      // In the tick in which the blob's own lease ends.
      for (const lease of this.#wanted.get(digest) ?? []) {
        if (leases.get(lease) !== undefined) this.#content.protect(digest, lease);
      }
    } finally {
      leases.delete(own.id);
      this.#wanted.delete(digest);
    }
  }

  /** Runs `work` when one of the daemon's places for transfers is free. */
  async withSlot<R>(work: () => Promise<R>): Promise<R> {
    return await this.#slots.runExclusive(work);
  }

  /** Breaks all connections and waits until what was under way has ended. */
  async close(): Promise<void> {
    await this.#transport.close();
    await this.#downloads.settle();
    await this.#resolves.settle();
  }
}

/** Places that nobody waits for: taken at once, or not at all. */
function spareSlots(slots: Semaphore): SpareSlots {
  return {
    tryTake: () => {
      if (slots.isLocked()) return false;
      // Given in this very call, because nobody else waits.
      void slots.acquire();
      return true;
    },
    release: () => slots.release(),
  };
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

/** Waits for a flight, and leaves it when the signal is aborted. */
async function ride<R>(
  passage: Passage<R>,
  signal: AbortSignal | undefined,
  what: string,
): Promise<R> {
  const leave = () => void passage.leave();
  signal?.addEventListener("abort", leave, { once: true });
  try {
    if (signal?.aborted === true) throw new CancelledError(`${what}: cancelled`);
    return await passage.result;
  } finally {
    signal?.removeEventListener("abort", leave);
    // When nobody else wants it, what it had is on disk and closed before the caller goes on.
    await passage.leave();
  }
}
