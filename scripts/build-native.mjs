#!/usr/bin/env node
// Compiles native/ into native/build/Release/varve_native.node and varve-keeper; does nothing when that is up to date.
//
//   --sanitize   builds into native/build/asan/ with the address and undefined-behaviour sanitizers
//   --force      builds even when nothing changed

import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const packageRoot = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const sanitize = process.argv.includes("--sanitize");
const force = process.argv.includes("--force");
const sourceDir = join(packageRoot, "native");
// node-gyp has one build directory per binding.gyp, so the sanitized build works on a copy.
const workDir = sanitize ? join(sourceDir, "build", "asan") : sourceDir;
// Its time is when the last good build began; the addon's own says only when it last changed.
const stampFile = join(workDir, "build", ".built");
const outputFile = join(workDir, "build", "Release", "varve_native.node");

if (process.platform !== "linux") fail("varve runs on Linux only: it mounts through /dev/fuse");
if (force || !isUpToDate()) build();

/** Whether the addon was built after everything it is made of changed. */
function isUpToDate() {
  if (!existsSync(outputFile) || !existsSync(stampFile)) return false;
  const built = statSync(stampFile).mtimeMs;
  const sources = [
    fileURLToPath(import.meta.url),
    join(sourceDir, "binding.gyp"),
    ...readdirSync(join(sourceDir, "src")).map((name) => join(sourceDir, "src", name)),
    // A removed source changes only its directory.
    join(sourceDir, "src"),
    join(sourceDir, "keeper", "main.cc"),
  ];
  return sources.every((source) => statSync(source).mtimeMs < built);
}

function build() {
  requireTools();
  mkdirSync(join(workDir, "build"), { recursive: true });
  if (sanitize) {
    cpSync(join(sourceDir, "binding.gyp"), join(workDir, "binding.gyp"));
    rmSync(join(workDir, "src"), { recursive: true, force: true });
    for (const part of ["src", "keeper"]) {
      cpSync(join(sourceDir, part), join(workDir, part), {
        recursive: true,
        preserveTimestamps: true,
      });
    }
  }
  const started = new Date();
  const result = runNodeGyp();
  if (result.status !== 0) {
    process.stderr.write(result.stdout + result.stderr);
    fail(`native build failed; the compiler's output is above${explain(result)}`);
  }
  writeFileSync(stampFile, "");
  utimesSync(stampFile, started, started);
  console.log(`built ${outputFile} in ${((Date.now() - started.getTime()) / 1000).toFixed(1)} s`);
}

/** Runs node-gyp under a lock: two builds in one directory would compile over each other. */
function runNodeGyp() {
  const args = [process.execPath, findNodeGyp(), "configure", "build", "--jobs=max"];
  const nodeDir = localNodeDir();
  if (nodeDir !== undefined) args.push(`--nodedir=${nodeDir}`);
  if (sanitize) args.push("--varve_sanitize=1");
  return spawnSync("flock", [join(workDir, "build", ".lock"), ...args], {
    cwd: workDir,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
    // binding.gyp runs `node`, which must be the node that runs this.
    env: { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` },
  });
}

function findNodeGyp() {
  try {
    return createRequire(import.meta.url).resolve("node-gyp/bin/node-gyp.js");
  } catch {
    return fail("node-gyp is not installed; run npm ci first");
  }
}

/** The directory whose include/node has the running node's headers, so that nothing is downloaded. */
function localNodeDir() {
  if (process.env.npm_config_nodedir !== undefined) return process.env.npm_config_nodedir;
  const prefix = resolve(dirname(process.execPath), "..");
  return existsSync(join(prefix, "include", "node", "node_api.h")) ? prefix : undefined;
}

function requireTools() {
  const packages = { "g++": "g++", make: "make", python3: "python3", flock: "util-linux" };
  const missing = Object.keys(packages).filter((tool) => !isOnPath(tool));
  if (missing.length === 0) return;
  const install = missing.map((tool) => packages[tool]).join(" ");
  fail(
    `native build needs ${missing.join(", ")}, not found on PATH; ` +
      `on Debian or Ubuntu: sudo apt-get install ${install}`,
  );
}

function isOnPath(tool) {
  const directories = (process.env.PATH ?? "").split(delimiter);
  return directories.some((directory) => existsSync(join(directory, tool)));
}

/** A hint for the one failure that the output above it does not explain: node-gyp downloads. */
function explain(result) {
  if (localNodeDir() !== undefined || !/configure error/.test(result.stderr)) return "";
  return (
    "; node's headers are not installed and node-gyp could not download them: " +
    "install them (libnode-dev on Debian) or set npm_config_nodedir to a node directory with include/"
  );
}

function fail(message) {
  console.error(`build-native: ${message}`);
  process.exit(1);
}
