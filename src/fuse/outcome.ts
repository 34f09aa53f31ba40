/** What the handlers of all requests have in common. */

import { IN_HEADER_BYTES } from "./constants.js";
import type { Exchange, Outcome } from "./exchange.js";
import type { Entry, OpenResult, Result } from "./file-system.js";

/** Where the argument structure begins. */
export const ARG = IN_HEADER_BYTES;

/** The output object for an entry, as good as new. */
export function emptyEntry(x: Exchange): Entry {
  const entry = x.work.entry;
  entry.node = 0;
  entry.generation = 0;
  return entry;
}

/** The output object for an open, as good as new. */
export function emptyOpen(x: Exchange, flags: number): OpenResult {
  const open = x.work.open;
  open.handle = 0;
  open.openFlags = flags;
  open.backingId = 0;
  return open;
}

/** The outcome of a call that fills `entry`. */
export function entryOutcome(x: Exchange, result: Result, entry: Entry): Outcome {
  return result < 0 ? result : x.work.reply.entry(entry);
}

/** The outcome of a call whose success carries nothing. */
export function plainOutcome(result: Result): Outcome {
  return result < 0 ? result : 0;
}

/** The outcome of a call that may answer later. */
export function syncOutcome(result: Result | Promise<Result>): Outcome {
  return typeof result === "number" ? plainOutcome(result) : result;
}
