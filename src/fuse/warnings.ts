/** What a session logs, each message once. */

/** Where a session reports what nobody waits for an answer to. */
export interface SessionLog {
  warn(message: string, error?: unknown): void;
  trace?(message: string): void;
}

/** Distinct messages logged by one session; a bug in a handler must not fill the log. */
const LOG_LIMIT = 100;

/** The warnings of one session. */
export class Warnings {
  readonly #target: string;
  readonly #log: SessionLog;
  readonly #logged = new Set<string>();

  constructor(o: { target: string; log: SessionLog }) {
    this.#target = o.target;
    this.#log = o.log;
  }

  /** Logs, once for each distinct message. */
  warn(what: string, error?: unknown): void {
    const reason = error instanceof Error ? error.message : "";
    const key = `${what}: ${reason}`;
    if (this.#logged.has(key) || this.#logged.size >= LOG_LIMIT) return;
    this.#logged.add(key);
    this.#log.warn(`fuse ${this.#target}: ${what}`, error);
  }

  /** For debugging: what happened, however often. */
  trace(what: string): void {
    this.#log.trace?.(what);
  }
}
