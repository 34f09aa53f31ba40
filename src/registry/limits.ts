/** Bounds on what a registry may make us do. */

/** Manifests and indexes; registries themselves refuse more. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

/** Error answers and tokens; what is longer is cut or refused. */
export const MAX_ANSWER_BYTES = 256 * 1024;

/** Blob stores redirect once or twice; more is a circle. */
export const MAX_REDIRECTS = 10;

/** Configuration and credential files. */
export const MAX_CONFIG_FILE_BYTES = 1024 * 1024;

/** Blobs fetched, or sent, side by side by the whole daemon. More only makes each one slower. */
export const MAX_CONCURRENT_BLOBS = 4;

/** The longest pause that a registry's Retry-After can impose. */
export const MAX_RETRY_AFTER_MS = 60_000;

/** How often and how patiently failed requests are repeated. */
export interface RetryPolicy {
  /** Tries without progress, the first included. */
  readonly attempts: number;
  readonly firstDelayMs: number;
  readonly maxDelayMs: number;
  /** A body that brings fewer than `minWindowBytes` in this time is given up and asked for again. */
  readonly windowMs: number;
  readonly minWindowBytes: number;
}

/** Survives a restart of the registry; gives up within about ten seconds of plain refusals. */
export const DEFAULT_RETRY: RetryPolicy = {
  attempts: 6,
  firstDelayMs: 200,
  maxDelayMs: 5_000,
  windowMs: 30_000,
  minWindowBytes: 4096,
};
