/** Kernel overlayfs as an oracle: mounts made for one callback, gone afterwards. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A private directory for one test; removed with everything mounted below it. */
export class Workbench {
  readonly path = mkdtempSync(join(tmpdir(), "varve-layers-"));
  #mounted: string[] = [];
  #count = 0;

  /** A new directory. */
  directory(name: string): string {
    const path = join(this.path, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /**
   * Mounts `layers` (base first) below an optional upper and returns the mount point. Without an
   * upper the mount is read-only.
   */
  mount(
    layers: readonly string[],
    upper?: { upperDir: string; workDir: string },
    options = "",
  ): string {
    this.#count += 1;
    const target = this.directory(`mount-${this.#count}`);
    const links = this.directory(`links-${this.#count}`);
    // Short relative names: the option string of a hundred layers must fit in a page.
    const empty = this.directory(`empty-${this.#count}`);
    const lower = [empty, ...layers].map((layer, position) => {
      symlinkSync(layer, join(links, `${position}`));
      return `${position}`;
    });
    const words = [`lowerdir=${lower.reverse().join(":")}`];
    if (upper !== undefined) words.push(`upperdir=${upper.upperDir}`, `workdir=${upper.workDir}`);
    if (options !== "") words.push(options);
    execFileSync("mount", ["-t", "overlay", "overlay", "-o", words.join(","), target], {
      cwd: links,
    });
    this.#mounted.push(target);
    return target;
  }

  /** Unmounts one mount point. */
  unmount(target: string): void {
    execFileSync("umount", [target]);
    this.#mounted = this.#mounted.filter((path) => path !== target);
  }

  /** Unmounts everything and removes the directory. */
  dispose(): void {
    for (const target of this.#mounted.reverse()) {
      try {
        execFileSync("umount", [target], { stdio: "ignore" });
      } catch {
        execFileSync("umount", ["-l", target]);
      }
    }
    this.#mounted = [];
    // rm(1) also removes paths longer than PATH_MAX.
    execFileSync("rm", ["-rf", this.path]);
  }
}

/** Runs a shell script in `cwd` and fails the test when it fails. */
export function shell(cwd: string, script: string): string {
  return execFileSync("bash", ["-euc", script], { cwd, encoding: "utf8" });
}
