/**
 * Places where a test may have the process die: after each step of whatever changes the state on disk.
 *
 * Off unless VARVE_FAULT is set, to `NAME` or `NAME:N`: then the N-th passage of that point (counted in
 * each thread by itself, from 1) kills the process with SIGKILL, as a crash or the OOM killer would.
 * `@FILE` reads the same from a file at each passage, so that a daemon at work can be told. A daemon
 * that a keeper starts again does not inherit the variable.
 */

import { readFileSync } from "node:fs";
import { InvalidArgumentError } from "./errors.js";

/** Every point, in the order in which a piece of work passes them. Each stands for "… and then died". */
export const FAULT_POINTS = [
  // content: a blob on its way in
  "ingest.begun",
  "ingest.written",
  "ingest.synced",
  "ingest.renamed",
  "ingest.recorded",
  // pull: a registry's image
  "pull.resolved",
  "pull.document",
  "pull.layer",
  "pull.fetched",
  "pull.named",
  // unpack and index: a layer's tree
  "unpack.begun",
  "unpack.entry",
  "unpack.applied",
  "index.written",
  "index.built",
  "snapshot.renamed",
  "snapshot.recorded",
  "snapshot.flushed",
  // prepare and mount: a view
  "prepare.work",
  "prepare.upper",
  "prepare.recorded",
  "mount.mounted",
  "mount.recorded",
  // what programs do in it
  "copy-up.staged",
  "copy-up.placed",
  "copy-up.data",
  "copy-up.completed",
  "create.placed",
  "rename.marked",
  "rename.prepared",
  "rename.moved",
  "remove.swapped",
  // commit
  "commit.entry",
  "commit.packed",
  "commit.layer",
  "commit.config",
  "commit.manifest",
  // names
  "tag.begun",
  "tag.recorded",
  "untag.recorded",
  // push
  "push.blob",
  "push.blobs",
  "push.manifest",
  // the end of a view, and what is left
  "unmount.unmounted",
  "remove.recorded",
  "remove.renamed",
  "gc.recorded",
  "gc.renamed",
  "gc.discarded",
] as const;

/** The name of a point: what is done, and how far. */
export type FaultPoint = (typeof FAULT_POINTS)[number];

const setting = process.env.VARVE_FAULT ?? "";
/** Passages of the point that is armed. */
let passages = 0;

/** Marks a point; does nothing unless this one is armed. */
export function faultPoint(point: FaultPoint): void {
  if (setting !== "") pass(point);
}

function pass(point: FaultPoint): void {
  const armed = parseFault(setting.startsWith("@") ? readText(setting.slice(1)) : setting);
  if (armed?.point !== point) return;
  passages++;
  if (passages === armed.passage) process.kill(process.pid, "SIGKILL");
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}

/**
 * What to die at; undefined for an empty text.
 *
 * @throws InvalidArgumentError an unknown point or a bad count: a fault that never strikes proves nothing
 */
export function parseFault(
  text: string,
): { readonly point: FaultPoint; readonly passage: number } | undefined {
  if (text === "") return undefined;
  const [, name, count = "1"] = /^([a-z.-]+)(?::([1-9][0-9]{0,8}))?$/.exec(text) ?? [];
  const point = FAULT_POINTS.find((one) => one === name);
  if (point !== undefined) return { point, passage: Number(count) };
  throw new InvalidArgumentError(
    `VARVE_FAULT=${text}: want NAME or NAME:N, where NAME is one of ${FAULT_POINTS.join(", ")}`,
  );
}
