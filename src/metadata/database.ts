/**
 * The embedded transactional store, the only source of truth for images, blobs, snapshots, views
 * and leases. Directories are reconciled against it when the daemon starts.
 *
 * Invariants: files come before rows when something is made (a row promises durable files), rows go
 * before files when something is removed (what is left behind is swept at the next start). A commit
 * is on disk when `transaction` returns (WAL with synchronous=FULL).
 */

import { mkdirSync } from "node:fs";
import path from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { AT_FDCWD, O_CLOEXEC, O_CREAT, O_RDONLY, O_WRONLY } from "../system/constants.js";
import { EDQUOT, must } from "../system/errno.js";
import {
  BaseError,
  CorruptDataError,
  FailedPreconditionError,
  PermissionDeniedError,
  ResourceExhaustedError,
} from "../system/errors.js";
import { BlobTable } from "./blob-table.js";
import { BuildStepTable } from "./build-step-table.js";
import { ContainerdTable } from "./containerd-table.js";
import { LeaseTable } from "./lease-table.js";
import { ReferenceTable } from "./reference-table.js";
import { MIGRATIONS } from "./schema.js";
import { SnapshotTable } from "./snapshot-table.js";
import { UnsyncedTable } from "./unsynced-table.js";
import { UseTable } from "./use-table.js";
import { ViewTable } from "./view-table.js";

/** An open database. Not for sharing between threads: one thread of the daemon owns it. */
export class Database {
  readonly path: string;
  readonly references: ReferenceTable;
  readonly blobs: BlobTable;
  readonly snapshots: SnapshotTable;
  readonly views: ViewTable;
  readonly leases: LeaseTable;
  readonly containerd: ContainerdTable;
  readonly uses: UseTable;
  readonly unsynced: UnsyncedTable;
  readonly buildSteps: BuildStepTable;
  readonly #sql: BetterSqlite3.Database;
  /** The write-ahead log, which is one file for as long as the database is open. */
  #log = -1;

  constructor(sql: BetterSqlite3.Database) {
    this.#sql = sql;
    this.path = sql.name;
    this.references = new ReferenceTable(sql);
    this.blobs = new BlobTable(sql);
    this.snapshots = new SnapshotTable(sql);
    this.views = new ViewTable(sql);
    this.leases = new LeaseTable(sql);
    this.containerd = new ContainerdTable(sql);
    this.uses = new UseTable(sql);
    this.unsynced = new UnsyncedTable(sql);
    this.buildSteps = new BuildStepTable(sql);
  }

  /**
   * Runs `work` in one transaction: all of it is durable when this returns, none of it when `work`
   * throws. Calls nest (the inner ones are savepoints). `work` is synchronous by design: no other
   * request runs between its statements.
   *
   * @throws ResourceExhaustedError the disk is full
   * @throws CorruptDataError the database file is damaged
   */
  transaction<T>(work: () => T): T {
    try {
      return this.#sql.transaction(work).immediate();
    } catch (error) {
      throw translate(error, this.path);
    }
  }

  /**
   * As `transaction`, but a power cut may undo it until the next `transaction` has returned (never
   * only a part of it, nor what came before). For rows about files that are not durable either.
   */
  lazyTransaction<T>(work: () => T): T {
    if (this.#sql.inTransaction) return this.transaction(work);
    this.#sql.pragma("synchronous = NORMAL");
    try {
      return this.transaction(work);
    } finally {
      this.#sql.pragma("synchronous = FULL");
    }
  }

  /**
   * Waits until everything that was committed before the call is durable, lazy transactions too. This
   * thread does other work meanwhile, which `transaction` would not let it.
   *
   * @throws SyscallError the disk fails
   */
  async flush(): Promise<void> {
    if (this.#log < 0) {
      const file = toBytes(`${this.path}-wal`);
      this.#log = must(sys.open(file, O_RDONLY | O_CLOEXEC, 0), "open", `${this.path}-wal`);
    }
    must(await sys.syncAsync("fsync", this.#log), "fsync", `${this.path}-wal`);
  }

  /** What is wrong with the file, with the indexes in it too, or with what its rows refer to. */
  verify(): string[] {
    const damage = this.#sql.pragma("integrity_check(20)") as { integrity_check: string }[];
    const strays = this.#sql.pragma("foreign_key_check") as { table: string; parent: string }[];
    return [
      ...damage.map((row) => row.integrity_check).filter((text) => text !== "ok"),
      ...strays.map(({ table, parent }) => `a row of ${table} refers to none of ${parent}`),
    ];
  }

  /** Closes the file; checkpoints the write-ahead log. Idempotent. */
  close(): void {
    if (this.#log >= 0) sys.close(this.#log);
    this.#log = -1;
    this.#sql.close();
  }
}

/**
 * Opens the database, creates it when absent and brings an older schema up to date.
 *
 * @param file absolute path; its directory is created
 * @throws CorruptDataError not a database, or damaged
 * @throws FailedPreconditionError written by a newer version of varve
 * @throws PermissionDeniedError, ResourceExhaustedError by the file system
 */
export function openDatabase(file: string): Database {
  let sql: BetterSqlite3.Database | undefined;
  try {
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    sql = new BetterSqlite3(file);
    configure(sql);
    migrate(sql, file);
    return new Database(sql);
  } catch (error) {
    sql?.close();
    throw translate(error, file);
  }
}

function configure(sql: BetterSqlite3.Database): void {
  sql.defaultSafeIntegers(true);
  sql.pragma("busy_timeout = 5000");
  // Nobody else opens it (the root directory is locked), so the log's index needs no mapped file. Where a
  // full disk or a quota takes no more pages, on btrfs, a write to such a mapping ends the process.
  sql.pragma("locking_mode = EXCLUSIVE");
  sql.pragma("journal_mode = WAL");
  // FULL also syncs the log at each commit: an acknowledged commit survives a power cut.
  sql.pragma("synchronous = FULL");
  sql.pragma("foreign_keys = ON");
}

function migrate(sql: BetterSqlite3.Database, file: string): void {
  const version = Number(sql.pragma("user_version", { simple: true }));
  if (version > MIGRATIONS.length) {
    throw new FailedPreconditionError(
      `open database ${file}: its schema version ${version} is newer than this varve's ` +
        `${MIGRATIONS.length}; use the newer varve, or another --root`,
    );
  }
  checkIntegrity(sql, file);
  for (let next = version; next < MIGRATIONS.length; next++) {
    sql
      .transaction(() => {
        sql.exec(MIGRATIONS[next]!);
        sql.pragma(`user_version = ${next + 1}`);
      })
      .immediate();
  }
}

function checkIntegrity(sql: BetterSqlite3.Database, file: string): void {
  // quick_check reads the whole file (a few MB at most here) and skips only the index contents.
  const verdict = sql.pragma("quick_check(1)", { simple: true });
  if (verdict === "ok") return;
  throw new CorruptDataError(`open database ${file}: damaged: ${String(verdict)}`);
}

/** Turns SQLite's and the file system's codes into the project's errors; others pass. */
function translate(error: unknown, file: string): unknown {
  if (error instanceof BaseError) return error;
  const code = String((error as { code?: unknown }).code ?? "");
  const reason = (error as Error).message;
  if (code === "SQLITE_NOTADB" || code.startsWith("SQLITE_CORRUPT")) {
    return new CorruptDataError(
      `database ${file}: ${reason}; restore it from a backup, or move it away to start empty`,
      { cause: error },
    );
  }
  if (code.startsWith("SQLITE_IOERR") && isQuotaUsedUp(file)) {
    return new ResourceExhaustedError(
      `database ${file}: the disk quota is used up; have it raised, or remove images that are not needed`,
      { cause: error },
    );
  }
  if (code === "SQLITE_FULL" || code === "ENOSPC") {
    return new ResourceExhaustedError(
      `database ${file}: no space left; free some on its file system or choose another --root`,
      { cause: error },
    );
  }
  if (code === "EACCES" || code === "EPERM" || code === "EROFS" || code === "SQLITE_READONLY") {
    return new PermissionDeniedError(`database ${file}: ${reason}`, { cause: error });
  }
  if (code.startsWith("SQLITE_CANTOPEN")) {
    return new FailedPreconditionError(`open database ${file}: ${reason}`, { cause: error });
  }
  return error;
}

const PROBE_BYTES = 64 * 1024;

/** Whether a write beside the database ends with EDQUOT, which SQLite does not tell from a broken disk. */
function isQuotaUsedUp(file: string): boolean {
  const probe = toBytes(`${file}.probe`);
  const fd = sys.open(probe, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600);
  if (fd < 0) return fd === -EDQUOT;
  const written = sys.pwrite(fd, Buffer.alloc(PROBE_BYTES), 0, PROBE_BYTES, 0);
  const flushed = written < 0 ? written : sys.fsync(fd);
  sys.close(fd);
  sys.unlinkat(AT_FDCWD, probe, 0);
  return flushed === -EDQUOT;
}
