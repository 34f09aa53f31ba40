/** Commands with several operands: each is tried, failures are reported as they come. */

import { BaseError } from "../system/errors.js";
import type { CliContext } from "./context.js";
import { printableText } from "./terminal-text.js";

/** Something failed and its message is already on standard error. */
export class ReportedFailure extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/**
 * Runs `work` for every operand, one after the other, and goes on after a failure.
 *
 * @throws the error itself when there is one operand, else ReportedFailure when any failed
 */
export async function forEachOperand<T>(
  cli: CliContext,
  operands: readonly T[],
  work: (operand: T) => Promise<void>,
): Promise<void> {
  let failures = 0;
  for (const operand of operands) {
    try {
      await work(operand);
    } catch (error) {
      // Ours, and about this operand only: anything else ends the command.
      const isOwn = error instanceof BaseError && error.code !== "UNAVAILABLE";
      if (operands.length === 1 || !isOwn || cli.signal.aborted) throw error;
      cli.warn(`varve: ${printableText(error.message)}`);
      failures += 1;
    }
  }
  if (failures > 0) throw new ReportedFailure(`${failures} of ${operands.length} failed`);
}
