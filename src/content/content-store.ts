import type { BlobRow } from "../metadata/blob-table.js";
import type { Database } from "../metadata/database.js";
import type { Labels } from "../metadata/labels.js";
import type { Digest } from "./digest.js";

/** SKELETON. */
export type IngestOptions = {
  expected?: Digest;
  expectedSize?: number;
  /** Resumable under this name. */
  ref?: string;
  mediaType?: string;
  /** The blob becomes a resource of this lease in the same transaction. */
  lease?: string;
};
export declare class Ingest {
  /** Bytes written so far; greater than 0 at the start when resumed. */
  readonly offset: number;
  write(chunk: Uint8Array): Promise<void>;
  commit(labels?: Labels): Promise<{ digest: Digest; size: number }>;
  abort(): Promise<void>;
}
export declare class ContentStore {
  readonly root: string;
  constructor(root: string, database: Database);
  /** Makes the directories, sweeps leftovers, reconciles with the table. Call once, before use. */
  open(): Promise<{ missing: Digest[]; removedFiles: number }>;
  path(digest: Digest): string;
  has(digest: Digest): boolean;
  /** @throws NotFoundError */
  info(digest: Digest): BlobRow;
  readBlob(digest: Digest, maxBytes: number): Promise<Buffer>;
  ingest(o?: IngestOptions): Promise<Ingest>;
  writeBlob(data: Uint8Array, o?: IngestOptions): Promise<{ digest: Digest; size: number }>;
  /** Renames a finished file in. With a lease as for ingest. */
  adoptFile(
    file: string,
    digest: Digest,
    size: number,
    o?: { mediaType?: string; lease?: string; labels?: Labels },
  ): Promise<void>;
  delete(digest: Digest): Promise<boolean>;
}
