/**
 * What `varve doctor` finds. A finding is one thing of this machine that varve wants: what is there,
 * and, where something is missing, what that costs and how to get it.
 */

import { findProgram } from "../system/programs.js";

/**
 * *ok*: as it should be. *note*: not needed, or nobody's mistake. *limited*: varve works, with less or
 * more slowly. *failed*: nothing can be mounted or kept before this is mended.
 */
export type Status = "ok" | "note" | "limited" | "failed";

/** One thing that was looked at. */
export interface Finding {
  /** The heading that it belongs under. */
  readonly area: string;
  readonly name: string;
  readonly status: Status;
  /** What is there. */
  readonly found: string;
  /** What its lack costs; "" where nothing is lacking. */
  readonly cost: string;
  /** How to get it; "" where there is nothing to do. */
  readonly remedy: string;
}

/** What a check says of one thing, without the words that are mostly empty. */
export interface Verdict {
  readonly status: Status;
  readonly found: string;
  readonly cost?: string;
  readonly remedy?: string;
}

/** What a program that varve starts means: where it is, or what its lack does. */
export function programOr(name: string, lack: Verdict): Verdict {
  const program = findProgram(name);
  return program === undefined ? lack : { status: "ok", found: program };
}

/** A finding of an area. */
export function finding(area: string, name: string, verdict: Verdict): Finding {
  return { area, name, cost: "", remedy: "", ...verdict };
}

/** True when varve does its work here, perhaps with less. */
export function isHealthy(findings: readonly Finding[]): boolean {
  return findings.every(({ status }) => status !== "failed");
}
