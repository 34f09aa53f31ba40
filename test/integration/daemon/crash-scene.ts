/**
 * A store that a daemon dies over: what was acknowledged before must be there after it, what was not is
 * gone or goes on, and nothing is left that belongs to nothing.
 */

import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { expect } from "vitest";
import type { StoreFault } from "../../../src/services/gen/varve/v1/varve_pb.js";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

/** Of the metacopy kind: its data is copied up after its metadata. */
export const BIG_BYTES = 200_000;

/** Directories, images and views of one test. */
export class CrashScene {
  readonly sandbox = new DaemonSandbox();
  readonly #kept = randomBytes(8).toString("hex");
  #keptTarget = "";

  get client() {
    return this.sandbox.client;
  }

  /** Starts, and makes what must outlive everything: an image, and a view with something written in it. */
  async open(): Promise<void> {
    await this.restart();
    const big = (tree: string) => {
      writeFileSync(path.join(tree, "big"), randomBytes(BIG_BYTES));
      for (const name of ["a", "b", "c", "d"]) writeFileSync(path.join(tree, name), `${name}\n`);
    };
    makeLayout(this.sandbox.path("kept"), "docker.io/library/kept:1");
    // Its base is its own, so that removing it removes unpacked layers.
    makeLayout(this.sandbox.path("layout"), "docker.io/library/small:latest", big);
    await this.sandbox.load(this.sandbox.path("kept"));
    const view = await this.sandbox.mount({ image: "kept:1", name: "kept" });
    this.#keptTarget = view.target;
    writeFileSync(path.join(view.target, "data/kept"), this.#kept);
  }

  async dispose(): Promise<void> {
    await this.sandbox.dispose();
  }

  /** Has the daemon at work die at a point. */
  arm(fault: string): void {
    writeFileSync(this.sandbox.path("fault"), fault);
  }

  /** Kills what runs, if anything, and starts a daemon that dies at no point yet. */
  async restart(): Promise<void> {
    rmSync(this.sandbox.path("fault"), { force: true });
    await this.sandbox.end("SIGKILL");
    await this.sandbox.startWith({ VARVE_FAULT: `@${this.sandbox.path("fault")}` });
  }

  /** What `varve check` finds. */
  async faults(verifyContent: boolean): Promise<StoreFault[]> {
    const faults: StoreFault[] = [];
    for await (const { fault } of this.client.checkStore({ verifyContent })) {
      if (fault !== undefined) faults.push(fault);
    }
    return faults;
  }

  /** Everything that must hold after a crash, whatever was under way. */
  async verify(): Promise<void> {
    expect(await this.faults(false)).toEqual([]);
    expect(readFileSync(path.join(this.#keptTarget, "data/kept"), "utf8")).toBe(this.#kept);
    const { views } = await this.client.listViews({});
    const ids = views.map((view) => view.id).sort();
    expect(this.list("root/views")).toEqual(ids);
    const targets = views.filter((view) => view.mounted).map((view) => view.target);
    expect(this.sandbox.mounts().sort()).toEqual(targets.sort());
    expect(this.list("state/views").filter((name) => !ids.includes(name))).toEqual([]);
    expect(this.list("root/ingest").filter((name) => !name.startsWith("ref-"))).toEqual([]);
    expect(this.list("root/snapshots").filter((name) => name.startsWith("."))).toEqual([]);
    for (const { name } of views) expect(await this.sandbox.diff(name)).toBeInstanceOf(Array);
  }

  list(directory: string): string[] {
    return readdirSync(this.sandbox.path(directory)).sort();
  }

  /** Removes everything but what is kept. */
  async clear(): Promise<void> {
    const { views } = await this.client.listViews({});
    for (const { name } of views) {
      if (name !== "kept") await this.client.removeView({ name, force: true });
    }
    const { images } = await this.client.listImages({});
    for (const { id, repoTags } of images) {
      if (repoTags.some((tag) => tag.includes("library/kept:"))) continue;
      await this.client.removeImage({ reference: id, force: true });
    }
    await this.client.prune({});
  }

  /** Removes what is kept, too; then there must be nothing. */
  async expectNothingLeft(): Promise<void> {
    await this.clear();
    expect(await this.faults(true)).toEqual([]);
    await this.client.removeView({ name: "kept", force: true });
    await this.client.removeImage({ reference: "kept:1" });
    await this.client.prune({ all: true });
    for (const directory of ["root/blobs/sha256", "root/snapshots", "root/views", "state/views"]) {
      expect(this.list(directory)).toEqual([]);
    }
  }
}
