/**
 * The table of leases. A lease keeps what it lists from garbage collection while work is under way
 * that no reference protects yet: a load, an unpack, a commit.
 */

import { randomUUID } from "node:crypto";
import type BetterSqlite3 from "better-sqlite3";
import { AlreadyExistsError, NotFoundError } from "../system/errors.js";
import { nowNs } from "./clock.js";
import {
  decodeLabels,
  encodeLabels,
  type Labels,
  TRANSIENT_LABEL,
  UNFINISHED_PULL_LABEL,
} from "./labels.js";

/** What a lease can keep: a blob, a snapshot with its parents, an image by reference name. */
export type LeaseResourceType = "content" | "snapshot" | "image";

/** One thing that a lease keeps. */
export type LeaseResource = { readonly type: LeaseResourceType; readonly id: string };

/** A lease. Without `expiresNs` it lasts until it is deleted. */
export type LeaseRow = {
  readonly id: string;
  readonly createdNs: bigint;
  readonly expiresNs?: bigint;
  readonly labels: Labels;
};

type Columns = { id: string; created_ns: bigint; expires_ns: bigint | null; labels: string };

/** Leases and their resources. Methods take part in an open transaction. */
export class LeaseTable {
  readonly #get;
  readonly #list;
  readonly #insert;
  readonly #delete;
  readonly #deleteExpired;
  readonly #addResource;
  readonly #deleteResource;
  readonly #resources;
  readonly #holders;

  constructor(sql: BetterSqlite3.Database) {
    this.#get = sql.prepare<[string], Columns>("SELECT * FROM leases WHERE id = ?");
    this.#list = sql.prepare<[], Columns>("SELECT * FROM leases ORDER BY created_ns, id");
    this.#insert = sql.prepare<[string, bigint, bigint | null, string]>(
      "INSERT INTO leases VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
    );
    this.#delete = sql.prepare<[string]>("DELETE FROM leases WHERE id = ?");
    this.#deleteExpired = sql.prepare<[bigint]>(
      "DELETE FROM leases WHERE expires_ns IS NOT NULL AND expires_ns <= ?",
    );
    this.#addResource = sql.prepare<[string, string, string]>(
      "INSERT INTO lease_resources VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    );
    this.#deleteResource = sql.prepare<[string, string, string]>(
      "DELETE FROM lease_resources WHERE lease = ? AND type = ? AND id = ?",
    );
    this.#resources = sql.prepare<[string], LeaseResource>(
      "SELECT type, id FROM lease_resources WHERE lease = ? ORDER BY type, id",
    );
    this.#holders = sql
      .prepare<[string, string], string>(
        "SELECT lease FROM lease_resources WHERE type = ? AND id = ? ORDER BY lease",
      )
      .pluck(true);
  }

  /**
   * Creates a lease.
   *
   * @param options.id a random one when absent
   * @param options.lifetimeMs until deleted when absent
   * @throws AlreadyExistsError the ID is taken
   */
  create(options: { id?: string; lifetimeMs?: number; labels?: Labels } = {}): LeaseRow {
    const id = options.id ?? randomUUID();
    const now = nowNs();
    const { lifetimeMs } = options;
    const expires = lifetimeMs === undefined ? null : now + BigInt(lifetimeMs) * 1_000_000n;
    const labels = encodeLabels(options.labels, `lease ${id}`);
    if (this.#insert.run(id, now, expires, labels).changes === 0) {
      throw new AlreadyExistsError(`create lease ${JSON.stringify(id)}: the ID is taken`);
    }
    return this.get(id)!;
  }

  get(id: string): LeaseRow | undefined {
    const row = this.#get.get(id);
    return row && decode(row);
  }

  /** Every lease, expired ones too, oldest first. */
  list(): LeaseRow[] {
    return this.#list.all().map(decode);
  }

  /** Deletes a lease; what it kept goes at the next collection. @returns false when there was none */
  delete(id: string): boolean {
    return this.#delete.run(id).changes > 0;
  }

  /** Deletes the leases whose time has come. @returns how many */
  deleteExpired(): number {
    return this.#deleteExpired.run(nowNs()).changes;
  }

  /** Deletes the leases of work that died with an earlier process; for the start of the daemon. */
  deleteTransient(): number {
    return this.#deleteLabelled(TRANSIENT_LABEL);
  }

  /** Deletes the leases that keep what unfinished pulls have fetched. @returns how many */
  deleteUnfinishedPulls(): number {
    return this.#deleteLabelled(UNFINISHED_PULL_LABEL);
  }

  #deleteLabelled(label: string): number {
    const found = this.list().filter((lease) => lease.labels[label] !== undefined);
    for (const lease of found) this.delete(lease.id);
    return found.length;
  }

  /**
   * Lets the lease keep a resource; idempotent.
   *
   * @throws NotFoundError no such lease
   */
  addResource(lease: string, resource: LeaseResource): void {
    if (this.get(lease) === undefined) {
      throw new NotFoundError(
        `add ${resource.type} ${resource.id} to lease ${lease}: no such lease`,
      );
    }
    this.#addResource.run(lease, resource.type, resource.id);
  }

  /** @returns false when the lease did not keep it */
  deleteResource(lease: string, resource: LeaseResource): boolean {
    return this.#deleteResource.run(lease, resource.type, resource.id).changes > 0;
  }

  /** What the lease keeps. */
  resources(lease: string): LeaseResource[] {
    return this.#resources.all(lease);
  }

  /** True when the lease's time has come. */
  isExpired(lease: LeaseRow): boolean {
    return lease.expiresNs !== undefined && lease.expiresNs <= nowNs();
  }

  /** The IDs of the leases that keep a resource. */
  holders(resource: LeaseResource): string[] {
    return this.#holders.all(resource.type, resource.id);
  }
}

function decode(row: Columns): LeaseRow {
  return {
    id: row.id,
    createdNs: row.created_ns,
    ...(row.expires_ns === null ? {} : { expiresNs: row.expires_ns }),
    labels: decodeLabels(row.labels),
  };
}
