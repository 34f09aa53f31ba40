/** Repeating what failed for a while. */

import { setTimeout as sleep } from "node:timers/promises";
import { CancelledError } from "../system/errors.js";
import { TransientError } from "./failures.js";
import type { RetryPolicy } from "./limits.js";

/**
 * Runs `work` until it succeeds, fails for good, or has failed `attempts` times in a row without
 * progress. Waits between tries: as long as the registry asks, else longer each time.
 *
 * @param work is told the number of the try, from 0; calls `progressed` when its failure would not
 *   be a repetition of the last one
 * @throws CancelledError the signal was aborted
 */
export async function withRetries<R>(
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  work: (progressed: () => void) => Promise<R>,
): Promise<R> {
  let failures = 0;
  for (;;) {
    let hasProgressed = false;
    try {
      return await work(() => {
        hasProgressed = true;
      });
    } catch (error) {
      failures = hasProgressed ? 1 : failures + 1;
      if (!(error instanceof TransientError) || failures >= policy.attempts) throw error;
      await pause(error.retryAfterMs ?? delayMs(policy, failures), signal);
    }
  }
}

/** Doubles each time; half of it is random, so that many clients do not come back together. */
function delayMs(policy: RetryPolicy, failures: number): number {
  const full = Math.min(policy.firstDelayMs * 2 ** (failures - 1), policy.maxDelayMs);
  return full / 2 + (Math.random() * full) / 2;
}

async function pause(delay: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(delay, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    throw new CancelledError("waiting to try again: cancelled", { cause: error });
  }
}
