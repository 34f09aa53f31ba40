/** The table of views: what users mount. */

import type BetterSqlite3 from "better-sqlite3";
import { AlreadyExistsError } from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import { nowNs } from "./clock.js";
import type { Digest } from "./digest.js";
import { decodeLabels, encodeLabels, type Labels } from "./labels.js";

/** How file data gets to programs; see views/io-mode.ts. */
export type IoMode = "cached" | "passthrough" | "auto";

/** Whether a view is mounted again after the machine was started. */
export type RestartPolicy = "no" | "always";

/** One view: an image's chain, with an upper directory unless it is read-only. */
export type ViewRow = {
  readonly id: string;
  readonly name: string;
  /** The image as the user named it, normalised. */
  readonly image: string;
  /** The config's digest. */
  readonly imageId: Digest;
  /** The platform's manifest; keeps config, layers and snapshots from garbage collection. */
  readonly manifestDigest: Digest;
  /** Absent for an image without layers. */
  readonly chainId?: Digest;
  readonly readOnly: boolean;
  /** Where it is, or was last, mounted. */
  readonly target: string;
  /** The desired state: mounted again after a restart of the daemon when true. */
  readonly mounted: boolean;
  /** What the user asked for; absent: the daemon's default. */
  readonly io?: IoMode;
  readonly restart: RestartPolicy;
  /** The machine's boot during which it was last mounted; empty: never. */
  readonly bootId: string;
  readonly labels: Labels;
  readonly createdNs: bigint;
};

type Columns = {
  id: string;
  name: string;
  image: string;
  image_id: Digest;
  manifest_digest: Digest;
  chain_id: Digest | null;
  read_only: bigint;
  target: string;
  mounted: bigint;
  labels: string;
  created_ns: bigint;
  io: IoMode | "";
  restart: RestartPolicy;
  boot_id: string;
};

/** Views. Every method is one statement and takes part in an open transaction. */
export class ViewTable {
  readonly #get;
  readonly #byName;
  readonly #list;
  readonly #insert;
  readonly #setMounted;
  readonly #setUnmounted;
  readonly #setIo;
  readonly #setRestart;
  readonly #setLabels;
  readonly #delete;

  constructor(sql: BetterSqlite3.Database) {
    this.#get = sql.prepare<[string], Columns>("SELECT * FROM views WHERE id = ?");
    this.#byName = sql.prepare<[string], Columns>("SELECT * FROM views WHERE name = ?");
    this.#list = sql.prepare<[], Columns>("SELECT * FROM views ORDER BY created_ns, id");
    this.#insert = sql.prepare<
      [
        string,
        string,
        string,
        string,
        string,
        string | null,
        number,
        string,
        number,
        string,
        bigint,
        string,
        RestartPolicy,
      ]
    >("INSERT INTO views VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')");
    this.#setMounted = sql.prepare<[string, string, string]>(
      "UPDATE views SET mounted = 1, target = ?, boot_id = ? WHERE id = ?",
    );
    this.#setUnmounted = sql.prepare<[string]>("UPDATE views SET mounted = 0 WHERE id = ?");
    this.#setRestart = sql.prepare<[RestartPolicy, string]>(
      "UPDATE views SET restart = ? WHERE id = ?",
    );
    this.#setIo = sql.prepare<[string, string]>("UPDATE views SET io = ? WHERE id = ?");
    this.#setLabels = sql.prepare<[string, string]>("UPDATE views SET labels = ? WHERE id = ?");
    this.#delete = sql.prepare<[string]>("DELETE FROM views WHERE id = ?");
  }

  get(id: string): ViewRow | undefined {
    const row = this.#get.get(id);
    return row && decode(row);
  }

  getByName(name: string): ViewRow | undefined {
    const row = this.#byName.get(name);
    return row && decode(row);
  }

  /** Every view, oldest first. */
  list(): ViewRow[] {
    return this.#list.all().map(decode);
  }

  /** @throws AlreadyExistsError the ID or the name is taken */
  insert(
    view: Omit<ViewRow, "createdNs" | "labels" | "restart" | "bootId"> & {
      labels?: Labels;
      restart?: RestartPolicy;
    },
  ): ViewRow {
    try {
      this.#insert.run(
        view.id,
        view.name,
        view.image,
        view.imageId,
        view.manifestDigest,
        view.chainId ?? null,
        Number(view.readOnly),
        view.target,
        Number(view.mounted),
        encodeLabels(view.labels, `view ${view.name}`),
        nowNs(),
        view.io ?? "",
        view.restart ?? "no",
      );
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new AlreadyExistsError(`create view ${JSON.stringify(view.name)}: the name is taken`, {
        cause: error,
      });
    }
    return this.get(view.id)!;
  }

  /** The view is to be mounted, on `target`. @returns false when there is no such view */
  setMounted(id: string, target: string, bootId: string): boolean {
    const { changes } = this.#setMounted.run(target, bootId, id);
    faultPoint("mount.recorded");
    return changes > 0;
  }

  /** The view is not to be mounted. @returns false when there is no such view */
  setUnmounted(id: string): boolean {
    return this.#setUnmounted.run(id).changes > 0;
  }

  /** Records what the user asked for. @returns false when there is no such view */
  setRestart(id: string, restart: RestartPolicy): boolean {
    return this.#setRestart.run(restart, id).changes > 0;
  }

  /** Records the I/O mode that the user asked for. @returns false when there is no such view */
  setIo(id: string, io: IoMode): boolean {
    return this.#setIo.run(io, id).changes > 0;
  }

  /** Replaces the labels. @returns false when there is no such view */
  setLabels(id: string, labels: Labels): boolean {
    return this.#setLabels.run(encodeLabels(labels, `view ${id}`), id).changes > 0;
  }

  /** @returns false when there was none */
  delete(id: string): boolean {
    return this.#delete.run(id).changes > 0;
  }
}

function isUniqueViolation(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return code === "SQLITE_CONSTRAINT_UNIQUE" || code === "SQLITE_CONSTRAINT_PRIMARYKEY";
}

function decode(row: Columns): ViewRow {
  return {
    id: row.id,
    name: row.name,
    image: row.image,
    imageId: row.image_id,
    manifestDigest: row.manifest_digest,
    ...(row.chain_id === null ? {} : { chainId: row.chain_id }),
    readOnly: row.read_only !== 0n,
    target: row.target,
    mounted: row.mounted !== 0n,
    ...(row.io === "" ? {} : { io: row.io }),
    restart: row.restart,
    bootId: row.boot_id,
    labels: decodeLabels(row.labels),
    createdNs: row.created_ns,
  };
}
