/** A process that builds nothing and serves one view until told to stop: `view-server OPTIONS.json`. */

import { readFileSync } from "node:fs";
import { FuseSession } from "../../../src/fuse/session.js";
import { emptyIndex, openIndex } from "../../../src/layers/index-reader.js";
import { OverlayFileSystem } from "../../../src/overlay/overlay-file-system.js";

/** What to serve. */
export interface ViewOptions {
  readonly target: string;
  readonly indexPath?: string;
  readonly layerDirs: readonly string[];
  readonly upperDir?: string;
  readonly workDir?: string;
  /** Ask the kernel for passthrough. */
  readonly passthrough: boolean;
}

const options = JSON.parse(readFileSync(process.argv[2]!, "utf8")) as ViewOptions;
const { target, indexPath, layerDirs, upperDir, workDir, passthrough } = options;
const fileSystem = new OverlayFileSystem({
  index: indexPath === undefined ? emptyIndex() : openIndex(indexPath),
  layerDirs,
  ...(upperDir !== undefined && workDir !== undefined && { upperDir, workDir }),
  privileged: true,
});
const session = FuseSession.mount({
  target,
  fileSystem,
  readOnly: upperDir === undefined,
  privileged: true,
  stackDepth: passthrough ? 1 : 0,
  log: { warn: (message, error) => process.send?.({ warning: `${message} ${String(error)}` }) },
  onEnd: () => {
    process.send?.({ ended: true });
    process.disconnect?.();
  },
});
process.on("message", () => {
  session.unmount(false).catch((error: unknown) => process.send?.({ warning: String(error) }));
});
process.send?.({ ready: true });
