/**
 * What a check of the store says.
 *
 * A *fault* is a place where the store is not as its own rows promise. It is *repaired* when nothing is
 * wrong there any more; what cannot be repaired says what a person can do.
 */

/** What kind of thing is at fault, and how. These names do not change. */
export type FaultKind =
  | "database"
  | "blob-missing"
  | "blob-damaged"
  | "blob-stray"
  | "ingest-stray"
  | "snapshot-missing"
  | "snapshot-damaged"
  | "snapshot-stray"
  | "image-incomplete"
  | "view-missing"
  | "view-stray"
  | "containerd-missing";

/** One fault. */
export interface StoreFault {
  readonly kind: FaultKind;
  /** A digest, a chain ID, a reference, a view's name or a path below the root. */
  readonly object: string;
  /** What is wrong, for a person. */
  readonly problem: string;
  readonly isRepaired: boolean;
  /** What was done about it, or what can be. */
  readonly remedy: string;
}

/** What was looked at. */
export interface CheckSummary {
  readonly blobs: number;
  readonly snapshots: number;
  readonly images: number;
  readonly views: number;
  /** Bytes that were read and hashed, or compared. */
  readonly verifiedBytes: number;
  /** Chain IDs whose files could not be compared with anything, because their blob is not here. */
  readonly unverified: readonly string[];
}

/** How to check. */
export interface CheckOptions {
  /** Read every blob and unpack every layer once more, instead of comparing sizes, times and owners. */
  readonly verifyContent: boolean;
  /** Mend what can be mended. */
  readonly repair: boolean;
  readonly onFault: (fault: StoreFault) => void;
  readonly onProgress?: (event: {
    readonly id: string;
    readonly action: string;
    readonly current: number;
    readonly total: number;
  }) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Of work that a crash of others left behind: nobody is at it any more after so long. */
export const STRAY_AGE_MS = 3600 * 1000;
