import type { ImageConfig } from "./manifest.js";

/** SKELETON. Returns the OCI runtime-spec config.json as an object. */
export declare function bundleConfig(o: {
  config: ImageConfig;
  /** Absolute path of the mounted view. */
  rootPath: string;
  readOnly: boolean;
  hostname: string;
  /** Reads a file of the view's root, e.g. "/etc/passwd"; undefined when absent. */
  readFile(path: string): Promise<Buffer | undefined>;
}): Promise<Record<string, unknown>>;
