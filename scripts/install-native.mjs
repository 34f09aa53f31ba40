#!/usr/bin/env node
// npm's install step: takes the addon that came with the package where it loads, and compiles it otherwise.

import { existsSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const packageRoot = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const prebuilt = join(packageRoot, "native/prebuilds", `${process.platform}-${process.arch}`);

/** Why the prebuilt addon cannot be used, or undefined where it can. */
function refusal() {
  const addon = join(prebuilt, "varve_native.node");
  if (!existsSync(addon)) return "none is for this machine";
  try {
    createRequire(import.meta.url)(addon);
    return undefined;
  } catch (error) {
    return error.message.split("\n")[0];
  }
}

const reason = refusal();
if (reason !== undefined) {
  console.log(`varve: compiling the native addon, since no prebuilt one serves (${reason})`);
  // The one that does not load would be found first.
  rmSync(prebuilt, { recursive: true, force: true });
  await import("./build-native.mjs");
}
