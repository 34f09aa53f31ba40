/** A content store of its own, and a registry that can be told to misbehave. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import type { ServerResponse } from "node:http";
import os from "node:os";
import path from "node:path";
import { ContentStore } from "../../../src/content/content-store.js";
import type { Descriptor } from "../../../src/content/descriptor.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import type { RegistryAccess } from "../../../src/registry/access.js";
import { type BlobProgress, Registries } from "../../../src/registry/registries.js";
import { FakeRegistry } from "./fake-registry.js";

const RETRY = { attempts: 4, firstDelayMs: 1, maxDelayMs: 5, windowMs: 100, minWindowBytes: 512 };

/** Make one before each test, and dispose of it. */
export class FetchScene {
  readonly root = mkdtempSync(path.join(os.tmpdir(), "varve-fetch-"));
  readonly database: Database = openDatabase(path.join(this.root, "varve.db"));
  readonly content = new ContentStore(this.root, this.database);
  readonly registries = new Registries({
    content: this.content,
    database: this.database,
    retry: RETRY,
  });
  readonly access: RegistryAccess = { plainHttp: true, environment: { HOME: "/nowhere" } };

  private constructor(readonly fake: FakeRegistry) {}

  static async start(): Promise<FetchScene> {
    const scene = new FetchScene(await FakeRegistry.start());
    await scene.content.open();
    return scene;
  }

  async dispose(): Promise<void> {
    await this.registries.close();
    await this.fake.dispose();
    this.database.close();
    rmSync(this.root, { recursive: true, force: true });
  }

  repository(means = this.access) {
    return this.registries.repository({ domain: this.fake.domain, path: "team/app" }, means);
  }

  lease(): string {
    return this.database.transaction(() => this.database.leases.create()).id;
  }

  fetch(
    descriptor: Descriptor,
    more: { signal?: AbortSignal; onProgress?: (event: BlobProgress) => void } = {},
    means = this.access,
  ): Promise<void> {
    const options = { repository: this.repository(means), lease: this.lease() };
    return this.registries.fetch(descriptor, { ...options, ...more });
  }

  stored(descriptor: Descriptor): Buffer {
    return readFileSync(this.content.path(descriptor.digest));
  }

  /** Files of fetches that were broken off. */
  partial(): string[] {
    return readdirSync(path.join(this.root, "ingest"));
  }

  /** Requests for blobs so far, with their ranges. */
  blobRequests(): string[] {
    return this.fake.requests.filter((one) => one.includes("/blobs/"));
  }

  /** Lets the first `count` blob requests be answered by `answer`. */
  misbehave(count: number, answer: (response: ServerResponse) => void): void {
    let left = count;
    this.fake.intercept = (request, response) => {
      if (!request.url?.includes("/blobs/") || left-- <= 0) return false;
      answer(response);
      return true;
    };
  }
}

/** The code that a promise is rejected with, or "none". */
export function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  return promise.then(
    () => "none",
    (error: { code?: string }) => error.code,
  );
}
