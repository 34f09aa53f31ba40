/**
 * Keeps the sessions of mounted views ready to be taken over, by another thread or by the next daemon:
 * the connection in varve-keeper or with the service manager, and what was agreed with the kernel in a
 * file beside the mounts.
 */

import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import type { Inheritance } from "../fuse/session-options.js";
import type { Log } from "../snapshots/log.js";
import { sys } from "../system/addon.js";
import type { DescriptorStore } from "./descriptor-store.js";
import { KeeperClient } from "./keeper-client.js";

/** What lasts, besides the connection. */
interface SessionRecord {
  readonly target: string;
  readonly agreement: Inheritance["agreement"];
}

/** A session that can be taken over. */
export interface KeptSession {
  readonly target: string;
  readonly inheritance: Inheritance;
}

/** What sessions leave notes about: exchanges of names, open files. */
const NOTES = ["exchange", "opens"];
const WATCH_INTERVAL_MS = 2_000;

/** The sessions of one daemon. */
export class SessionKeeper {
  readonly #directory: string;
  readonly #socket: string;
  readonly #command: readonly string[];
  readonly #log: Log;
  #client: DescriptorStore | undefined;
  #starting: Promise<DescriptorStore> | undefined;
  /** What an earlier daemon left, until somebody takes it. */
  #left = new Map<string, number>();
  #hasInherited = false;
  #watch: NodeJS.Timeout | undefined;
  readonly #onLost: (() => Promise<void>)[] = [];

  /**
   * @param o.command starts the next daemon; empty when a service manager does
   * @param o.store keeps connections; absent: varve-keeper, started when there are any
   */
  constructor(o: {
    state: string;
    command: readonly string[];
    store?: DescriptorStore | undefined;
    log: Log;
  }) {
    this.#directory = path.join(o.state, "sessions");
    this.#socket = path.join(o.state, "keeper.sock");
    this.#command = o.command;
    this.#log = o.log;
    this.#client = o.store;
  }

  /** Calls `keepAll` when the keeper is gone: all sessions must be given to `keep` again. */
  onLost(keepAll: () => Promise<void>): void {
    this.#onLost.push(keepAll);
  }

  /** Gets what an earlier daemon left. Call once, before use. */
  async open(): Promise<void> {
    await fs.mkdir(this.#directory, { recursive: true, mode: 0o700 });
    this.#client ??= KeeperClient.connect(this.#socket);
    this.#client?.introduce(this.#command);
    this.#left = this.#client?.all() ?? new Map();
    this.#hasInherited = this.#left.size > 0;
    for (const file of readdirSync(this.#directory)) {
      if (!this.#left.has(path.parse(file).name)) rmSync(path.join(this.#directory, file));
    }
    this.#watch = setInterval(() => this.#look(), WATCH_INTERVAL_MS).unref();
  }

  /** True when an earlier daemon left sessions. */
  get hasInherited(): boolean {
    return this.#hasInherited;
  }

  /** True when an earlier daemon left a session for this view, which nobody has taken. */
  hasLeft(viewId: string): boolean {
    return this.#left.has(viewId);
  }

  /** The session that an earlier daemon left for a view; the caller must take it or `release` it. */
  inherit(viewId: string): KeptSession | undefined {
    const descriptor = this.#left.get(viewId);
    if (descriptor === undefined) return undefined;
    this.#left.delete(viewId);
    return this.#withRecord(viewId, descriptor);
  }

  /** Ends what nobody took: programs that use it get ENOTCONN. */
  releaseLeft(): void {
    for (const [viewId, descriptor] of this.#left) {
      sys.close(descriptor);
      this.release(viewId);
    }
    this.#left.clear();
  }

  /** Where the session of a view may leave notes for its successor: files whose names begin so. */
  notes(viewId: string): string {
    return path.join(this.#directory, viewId);
  }

  /** Keeps a session. Takes the descriptor over. Without a keeper the view works, but dies with the daemon. */
  async keep(viewId: string, session: KeptSession): Promise<void> {
    const { target, inheritance } = session;
    try {
      const record: SessionRecord = { target, agreement: inheritance.agreement };
      const file = this.#recordPath(viewId);
      writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
      renameSync(`${file}.new`, file);
      (await this.#connected()).put(viewId, inheritance.descriptor);
    } catch (error) {
      this.#log.warn(`view ${viewId} will not outlive this daemon`, error);
    } finally {
      sys.close(inheritance.descriptor);
    }
  }

  /** Copies of kept sessions by view, for threads that take over from another one. */
  copies(wanted: ReadonlyMap<string, unknown>): Map<string, KeptSession> {
    const found = new Map<string, KeptSession>();
    for (const [viewId, descriptor] of this.#tryAll()) {
      if (!wanted.has(viewId)) {
        sys.close(descriptor);
        continue;
      }
      const session = this.#withRecord(viewId, descriptor);
      if (session !== undefined) found.set(viewId, session);
    }
    return found;
  }

  /** The view is unmounted, or to be ended. */
  release(viewId: string): void {
    rmSync(this.#recordPath(viewId), { force: true });
    for (const kind of NOTES) rmSync(`${this.notes(viewId)}.${kind}`, { force: true });
    try {
      this.#client?.drop(viewId);
    } catch (error) {
      this.#log.warn(`view ${viewId}: its connection was not released`, error);
    }
  }

  /** The daemon ends on purpose; what is kept now waits for the next one. */
  close(): void {
    clearInterval(this.#watch);
    try {
      this.#client?.sayGoodbye();
    } catch (error) {
      this.#log.warn("keeper: no farewell", error);
    }
    this.#client?.close();
    this.#client = undefined;
  }

  #recordPath(viewId: string): string {
    return path.join(this.#directory, `${viewId}.json`);
  }

  #withRecord(viewId: string, descriptor: number): KeptSession | undefined {
    try {
      const text = readFileSync(this.#recordPath(viewId), "utf8");
      const { agreement, target } = JSON.parse(text) as SessionRecord;
      return { target, inheritance: { descriptor, agreement } };
    } catch (error) {
      this.#log.warn(`view ${viewId}: cannot be taken over`, error);
      sys.close(descriptor);
      this.release(viewId);
      return undefined;
    }
  }

  #tryAll(): Map<string, number> {
    try {
      return this.#client?.all() ?? new Map();
    } catch {
      return new Map();
    }
  }

  #connected(): Promise<DescriptorStore> {
    if (this.#client !== undefined) return Promise.resolve(this.#client);
    this.#starting ??= KeeperClient.start(this.#socket)
      .then((client) => {
        client.introduce(this.#command);
        this.#client = client;
        return client;
      })
      .finally(() => {
        this.#starting = undefined;
      });
    return this.#starting;
  }

  #look(): void {
    if (this.#client === undefined || this.#client.isAlive()) return;
    this.#client.close();
    this.#client = undefined;
    this.#log.warn("the keeper died; starting another");
    for (const keepAll of this.#onLost) {
      keepAll().catch((error: unknown) => this.#log.warn("keeper: not all is kept", error));
    }
  }
}
