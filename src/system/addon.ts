/**
 * Loads the addon. The only module that touches the .node file; it loads once per thread, when
 * first imported.
 */

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { FailedPreconditionError } from "./errors.js";
import type { FuseNative, NativeAddon, Syscalls } from "./native.js";
import type { Codecs } from "./native-codecs.js";

const FILE_NAME = "varve_native.node";

/** Where the addon may lie below the package root, best first. */
const CANDIDATES = [
  join("native", "prebuilds", `${process.platform}-${process.arch}`, FILE_NAME),
  join("native", "build", "Release", FILE_NAME),
];

/**
 * Finds the addon's file. This module runs from src/, from dist/ and from inside a bundle, so the
 * package root is whichever directory above has the file.
 */
function findAddon(): string {
  // Lets the sanitizer run test another build; anything else is found by place.
  const override = process.env.VARVE_NATIVE_ADDON;
  if (override !== undefined && override !== "") return override;
  const start = dirname(fileURLToPath(import.meta.url));
  for (let directory = start; ; directory = dirname(directory)) {
    for (const candidate of CANDIDATES) {
      const path = join(directory, candidate);
      if (existsSync(path)) return path;
    }
    if (dirname(directory) === directory) break;
  }
  throw new FailedPreconditionError(
    `load native addon: no ${CANDIDATES.join(" or ")} in or above ${start}; ` +
      "build it with: npm run build:native",
  );
}

function load(path: string): NativeAddon {
  try {
    return createRequire(import.meta.url)(path) as NativeAddon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FailedPreconditionError(
      `load native addon ${path}: ${reason}; build it for this machine with: npm run build:native`,
      { cause },
    );
  }
}

/** The file that was loaded. */
export const addonPath: string = findAddon();

/**
 * Everything the addon exports.
 *
 * @throws FailedPreconditionError on import, when the addon is not built or not for this machine
 */
export const native: NativeAddon = load(addonPath);

/** The system calls. */
export const sys: Syscalls = native.syscalls;

/** Compression. */
export const codecs: Codecs = native.codecs;

/** Making /dev/fuse connections. */
export const fuse: FuseNative = native.fuse;
