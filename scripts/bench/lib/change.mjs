/**
 * Makes the change that scripts/bench/commit commits, the same bytes every time.
 *
 *   node change.mjs DIRECTORY SMALL_FILES BIG_MEGABYTES DELETIONS
 *
 * DIRECTORY is a root file system with usr/share in it. Big files are three quarters noise, one
 * quarter text, as programs and archives are; small ones are text of 200 bytes to 8 KB.
 */

import { createCipheriv } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

const BIG_FILE = 10 * (1 << 20);
const [dir, small, megabytes, deletions] = [process.argv[2], ...process.argv.slice(3).map(Number)];
if (!path.isAbsolute(dir ?? "") || dir === "/")
  throw new Error("change.mjs: want the absolute path of a root file system");

const noise = createCipheriv("aes-128-ctr", Buffer.alloc(16, 7), Buffer.alloc(16));
const words = [
  "layer",
  "view",
  "index",
  "commit",
  "digest",
  "mount",
  "file",
  "tree",
  "whiteout",
  "snapshot",
];
const text = Array.from(
  noise.update(Buffer.alloc(1 << 20)),
  (byte) => words[byte % words.length],
).join(" ");

const made = path.join(dir, "opt/bench");
mkdirSync(made, { recursive: true });
for (let i = 0; i < small; i++) {
  const parent = path.join(made, `d${Math.floor(i / 100)}`);
  if (i % 100 === 0) mkdirSync(parent);
  const start = (i * 7919) % 1_000_000;
  writeFileSync(path.join(parent, `f${i}`), text.slice(start, start + 200 + ((i * 131) % 7800)));
}
for (let written = 0; written < megabytes * (1 << 20); written += BIG_FILE) {
  const size = Math.min(BIG_FILE, megabytes * (1 << 20) - written);
  const bytes = Buffer.from(text.repeat(Math.ceil(size / text.length)).slice(0, size));
  const random = Math.floor(size * 0.75);
  noise.update(Buffer.alloc(random)).copy(bytes);
  writeFileSync(path.join(made, `big-${written}`), bytes);
}
let left = deletions;
for (const entry of readdirSync(path.join(dir, "usr/share"), {
  recursive: true,
  withFileTypes: true,
})) {
  if (left === 0) break;
  if (!entry.isFile()) continue;
  rmSync(path.join(entry.parentPath, entry.name));
  left--;
}
