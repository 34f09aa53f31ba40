/**
 * What /proc says of the thread that a request comes from, by the thread ID in the request's header. Of threads
 * that cannot be seen from here (of another PID namespace, of another user) everything is false.
 *
 * @see proc(5), /proc/pid/stat and /proc/pid/status
 */

import { readFileSync } from "node:fs";

/** SIGKILL in a mask of signals; every fatal signal is turned into it. */
const KILLED = 1n << 8n;

/** Whether it will never return to its program. */
export function isBeingKilled(tid: number): boolean {
  return [...read(tid, "status").matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)].some(
    ([, mask]) => (BigInt(`0x${mask}`) & KILLED) !== 0n,
  );
}

/** Whether it runs, would if it had a core, or waits for the disk or for memory; not for an answer or an event. */
export function isBusy(tid: number): boolean {
  const stat = read(tid, "stat");
  // Its name, in parentheses, may have any character in it.
  const state = stat.charAt(stat.lastIndexOf(")") + 2);
  return state === "R" || state === "D";
}

function read(tid: number, file: "stat" | "status"): string {
  try {
    return readFileSync(`/proc/${tid}/${file}`, "latin1");
  } catch {
    return "";
  }
}
