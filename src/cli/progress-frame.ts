/** What a progress display shows at one moment. Pure: tasks in, lines out. */

import { humanRate, humanSize } from "./sizes.js";
import { displayWidth, printableText, truncateText } from "./terminal-text.js";

/** One object that is worked on: a layer, a blob, an archive. */
export interface ProgressTask {
  readonly id: string;
  readonly action: string;
  /** Bytes done of `total`; `total` is 0 when unknown. */
  readonly current: number;
  readonly total: number;
  /** When the action began, and how many bytes were done then: the rate is counted from there. */
  readonly sinceMs: number;
  readonly sinceBytes: number;
}

/** The terminal that a frame is made for. */
export interface FrameSize {
  readonly columns: number;
  readonly rows: number;
}

const FINISHED = new Set(["done", "exists"]);
// Long enough for every action of the protocol, so that bars stand in one column.
const ACTION_WIDTH = 10;
const MAX_BAR = 40;
const MIN_BAR = 12;
// "12.3MB / 45.6MB" and "45.2MB/s": sizes have at most six characters.
const BYTES_WIDTH = 15;
const RATE_WIDTH = 8;
// A rate over less time than this is noise.
const MIN_RATE_MS = 300;

/** True when nothing more will come for the task. */
export function isFinished(task: ProgressTask): boolean {
  return FINISHED.has(task.action);
}

/** A short name: twelve digits of a digest, a path or reference otherwise. */
export function shortId(id: string): string {
  const digest = /^sha256:([0-9a-f]{12})/.exec(id);
  return digest?.[1] ?? printableText(id);
}

/**
 * The lines of a frame, none wider than the terminal and fewer than it has rows. When there are more
 * tasks than rows, those under way are shown and a last line counts the others.
 */
export function renderFrame(
  tasks: readonly ProgressTask[],
  size: FrameSize,
  nowMs: number,
): string[] {
  // The last column stays free: some terminals wrap when it is filled.
  const width = Math.max(10, size.columns - 1);
  const room = Math.max(1, size.rows - 1);
  const shown = tasks.length <= room ? tasks : mostInteresting(tasks, room - 1);
  const idWidth = Math.min(
    Math.max(12, ...shown.map((task) => displayWidth(shortId(task.id)))),
    // A quarter: a long reference must not take the place of the rates on 80 columns.
    Math.max(12, Math.floor(width / 4)),
  );
  const lines = shown.map((task) => truncateText(taskLine(task, idWidth, width, nowMs), width));
  if (shown.length < tasks.length) lines.push(truncateText(restLine(tasks, shown), width));
  return lines;
}

/** Those under way first, then waiting ones, then finished ones; in their own order. */
function mostInteresting(tasks: readonly ProgressTask[], room: number): readonly ProgressTask[] {
  const rank = (task: ProgressTask) => (isFinished(task) ? 2 : task.action === "waiting" ? 1 : 0);
  const kept = new Set(
    tasks
      .map((task, position) => ({ task, position }))
      .sort((a, b) => rank(a.task) - rank(b.task) || a.position - b.position)
      .slice(0, Math.max(0, room))
      .map(({ task }) => task),
  );
  return tasks.filter((task) => kept.has(task));
}

function restLine(tasks: readonly ProgressTask[], shown: readonly ProgressTask[]): string {
  const rest = tasks.filter((task) => !shown.includes(task));
  const done = rest.filter(isFinished).length;
  const waiting = rest.filter((task) => task.action === "waiting").length;
  const active = rest.length - done - waiting;
  const parts = [
    ...(active > 0 ? [`${active} active`] : []),
    ...(waiting > 0 ? [`${waiting} waiting`] : []),
    ...(done > 0 ? [`${done} done`] : []),
  ];
  return `and ${rest.length} more: ${parts.join(", ")}`;
}

function taskLine(task: ProgressTask, idWidth: number, width: number, nowMs: number): string {
  const id = truncateText(shortId(task.id), idWidth);
  const idCell = id + " ".repeat(idWidth - displayWidth(id));
  const head = `${idCell}  ${capital(task.action).padEnd(ACTION_WIDTH)}`;
  if (isFinished(task) || task.action === "waiting") return head.trimEnd();
  const bytes = bytesText(task);
  const rate = rateText(task, nowMs);
  const room = width - displayWidth(head);
  // The same bar on every line: its length depends on the terminal, not on the figures beside it.
  const roomyBar = room - 2 - (2 + BYTES_WIDTH) - (2 + RATE_WIDTH);
  const tightBar = room - 2 - (2 + BYTES_WIDTH);
  if (task.total <= 0) return firstFitting(head, [[bytes, rate], [bytes]], room);
  if (roomyBar >= MIN_BAR) {
    return firstFitting(head, [[bar(task, roomyBar), bytes.padEnd(BYTES_WIDTH), rate]], room);
  }
  if (tightBar >= MIN_BAR) return firstFitting(head, [[bar(task, tightBar), bytes]], room);
  return firstFitting(head, [[bytes], [percent(task)]], room);
}

/** The head with the first of the choices that fits, or alone. */
function firstFitting(head: string, choices: readonly (readonly string[])[], room: number): string {
  for (const parts of choices) {
    const tail = parts
      .filter((part) => part !== "")
      .map((part) => `  ${part}`)
      .join("");
    if (displayWidth(tail) <= room) return (head + tail).trimEnd();
  }
  return head.trimEnd();
}

function capital(action: string): string {
  return action.charAt(0).toUpperCase() + action.slice(1);
}

function fraction(task: ProgressTask): number {
  return task.total <= 0 ? 0 : Math.min(1, Math.max(0, task.current / task.total));
}

function percent(task: ProgressTask): string {
  return `${Math.floor(fraction(task) * 100)}%`;
}

function bytesText(task: ProgressTask): string {
  if (task.total > 0) return `${humanSize(task.current)} / ${humanSize(task.total)}`;
  return task.current > 0 ? humanSize(task.current) : "";
}

function rateText(task: ProgressTask, nowMs: number): string {
  const elapsed = nowMs - task.sinceMs;
  const bytes = task.current - task.sinceBytes;
  return elapsed < MIN_RATE_MS || bytes <= 0 ? "" : humanRate((bytes * 1000) / elapsed);
}

/** "[=====>    ]", `room` wide but no wider than is pleasant. */
function bar(task: ProgressTask, room: number): string {
  const cells = Math.min(MAX_BAR, room) - 2;
  const filled = Math.floor(fraction(task) * cells);
  const head = filled < cells ? ">" : "";
  return `[${"=".repeat(filled)}${head}${" ".repeat(cells - filled - head.length)}]`;
}
