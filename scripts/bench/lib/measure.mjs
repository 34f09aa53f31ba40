/** Wall time, CPU seconds and peak memory of commands and of the daemons that work for them. */

import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const timedProgram = fileURLToPath(new URL("timed", import.meta.url));
const TICK_MS =
  1000 / Number(spawnSync("getconf", ["CLK_TCK"], { encoding: "utf8" }).stdout || 100);

/**
 * Runs a command to its end and says what it cost.
 *
 * @param {string[]} argv
 * @param {{cwd?: string, env?: Record<string, string>, workspace: import("./workspace.mjs").Workspace,
 *   daemons?: number[], selfTimed?: boolean, mayFail?: boolean}} options `daemons`: processes whose CPU time
 *   is added and whose peak memory is taken when larger; `selfTimed`: the command prints its own
 *   {wallMs, cpuMs} as JSON, so that its start does not count
 * @returns {{wallMs: number, cpuMs: number, peakMiB: number, stdout: string}}
 */
export function timed(argv, options) {
  const daemons = options.daemons ?? [];
  for (const pid of daemons) resetPeak(pid);
  const before = sum(daemons.map(cpuMsOf));
  const result = options.workspace.path("timed.json");
  const run = spawnSync("python3", ["-S", timedProgram, result, ...argv], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (run.status !== 0 && !options.mayFail)
    throw new Error(
      `${argv.join(" ").slice(0, 300)}: exit code ${run.status ?? run.signal}\n${run.stderr}`,
    );
  const cost = JSON.parse(readFileSync(result, "utf8"));
  rmSync(result);
  if (options.selfTimed) Object.assign(cost, JSON.parse(run.stdout));
  cost.cpuMs += sum(daemons.map(cpuMsOf)) - before;
  cost.peakMiB = Math.max(cost.peakMiB, ...daemons.map(peakMiBOf));
  return { ...cost, stdout: run.stdout };
}

/** Runs a command for its effect; throws with its words when it fails. */
export function must(argv, options = {}) {
  const run = spawnSync(argv[0], argv.slice(1), {
    encoding: "utf8",
    maxBuffer: 1 << 28,
    ...options,
  });
  if (run.status !== 0)
    throw new Error(
      `${argv.join(" ").slice(0, 300)}: exit code ${run.status ?? run.error?.message}\n${run.stderr}`,
    );
  return run.stdout;
}

/** Whether a program is on PATH. */
export function has(program) {
  return (process.env.PATH ?? "").split(":").some((dir) => {
    try {
      return readdirSync(dir).includes(program);
    } catch {
      return false;
    }
  });
}

/** CPU time of a process, all its threads and its ended children, in ms; 0 when it is gone. */
export function cpuMsOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return sum(fields.slice(11, 15).map(Number)) * TICK_MS;
  } catch {
    return 0;
  }
}

/** A number of /proc/PID/status or smaps_rollup in MiB: VmRSS, VmHWM, Pss… */
export function memoryMiB(pid, field, file = "status") {
  try {
    const line = readFileSync(`/proc/${pid}/${file}`, "latin1").match(
      new RegExp(`^${field}:\\s+(\\d+) kB`, "m"),
    );
    return Number(line?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

const peakMiBOf = (pid) => memoryMiB(pid, "VmHWM");

function resetPeak(pid) {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5"); // proc(5): resets the peak resident set size
  } catch {
    // Gone, or not ours: its peak since its start is reported then.
  }
}

export const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

export function median(numbers) {
  if (numbers.length === 0) return Number.NaN;
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
