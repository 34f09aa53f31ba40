/**
 * Random work in a directory tree. Also a program, because a thread must not work in a mount that it
 * serves itself: node random-work.mjs ROOT STEPS-AS-JSON
 */

import {
  appendFileSync,
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** How many kinds of operation there are. */
export const OPERATIONS = 13;

/**
 * Does one thing; what is not possible there fails and does not matter.
 *
 * @param {string} root
 * @param {readonly [operation: number, first: number, second: number]} step
 */
export function perform(root, [operation, first, second]) {
  const all = readdirSync(root, { recursive: true }).map(String).sort();
  const at = join(root, all[first % Math.max(1, all.length)] ?? "a");
  const other = join(root, all[second % Math.max(1, all.length)] ?? "a");
  const isDirectory = statSync(other, { throwIfNoEntry: false })?.isDirectory() ?? false;
  const fresh = join(isDirectory ? other : root, `n${second % 7}`);
  const operations = [
    () => writeFileSync(fresh, `new ${first}`),
    () => appendFileSync(at, "more"),
    () => mkdirSync(fresh),
    () => renameSync(at, fresh),
    () => renameSync(at, other),
    () => rmSync(at, { recursive: true }),
    () => chmodSync(at, first % 2 === 0 ? 0o700 : 0o640),
    () => chownSync(at, first % 5, 7),
    () => linkSync(at, fresh),
    () => symlinkSync(`t${first}`, fresh),
    () => truncateSync(at, first % 10),
    () => {
      rmSync(at, { recursive: true });
      mkdirSync(at);
    },
    () => utimesSync(at, 1, first),
  ];
  // Opening a fifo for reading or writing would wait for ever.
  if ([at, fresh].some((path) => statSync(path, { throwIfNoEntry: false })?.isFIFO())) return;
  try {
    operations[operation % OPERATIONS]();
  } catch (error) {
    if (error.syscall === undefined) throw error;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [root, steps] = process.argv.slice(2);
  for (const step of JSON.parse(steps)) perform(root, step);
}
