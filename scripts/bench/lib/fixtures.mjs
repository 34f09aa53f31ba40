/** Layers that single workloads need on top of the image. */

import { createCipheriv } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { addLayer } from "./images.mjs";
import { must } from "./measure.mjs";

/** Where each fixture is in the image. */
export const REPOSITORY = "srv/repository";
export const PYTHON = "opt/python";
export const SIZES = "srv/sizes";

const REPOSITORY_FILES = 50_000;
const FILES_PER_DIRECTORY = 100;
const KIBIBYTE = 1024;

/** File names and sizes in `SIZES`. */
export const FILE_SIZES = { "1K": KIBIBYTE, "1M": KIBIBYTE ** 2, "1G": KIBIBYTE ** 3 };

const makers = {
  /** A git checkout of 50,000 small files, committed. */
  repository(dir) {
    for (let i = 0; i < REPOSITORY_FILES; i++) {
      const parent = path.join(dir, `d${Math.floor(i / FILES_PER_DIRECTORY)}`);
      if (i % FILES_PER_DIRECTORY === 0) mkdirSync(parent);
      writeFileSync(path.join(parent, `file-${i}.txt`), `file ${i}\n`.repeat(10));
    }
    const git = (...args) => must(["git", "-C", dir, "-c", "gc.auto=0", ...args]);
    git("init", "-q");
    git("add", ".");
    git("-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-qm", "all");
    git("repack", "-adq");
  },
  /** The standard library of this machine's Python, as PYTHONHOME wants it. */
  python(dir) {
    const [library, version] = must([
      "python3",
      "-c",
      'import sys,sysconfig;print(sysconfig.get_path("stdlib"),"%d.%d"%sys.version_info[:2],sep="\\n")',
    ]).split("\n");
    const target = path.join(dir, "lib", `python${version}`);
    mkdirSync(target, { recursive: true });
    const skipped = ["test", "site-packages", "config-*"].map((name) => `--exclude=./${name}`);
    must(["bash", "-c", 'tar -C "$0" "$@" -c . | tar -C "$TARGET" -x', library, ...skipped], {
      env: { ...process.env, TARGET: target },
    });
  },
  /** A file of each size of FILE_SIZES, with noise in it. */
  sizes(dir) {
    for (const [name, size] of Object.entries(FILE_SIZES)) {
      const noise = createCipheriv("aes-128-ctr", Buffer.alloc(16, 7), Buffer.alloc(16));
      const file = path.join(dir, name);
      for (let done = 0; done < size; done += KIBIBYTE ** 2) {
        const chunk = noise.update(Buffer.alloc(Math.min(size - done, KIBIBYTE ** 2)));
        writeFileSync(file, chunk, { flag: "a" });
      }
    }
  },
};

const places = { repository: REPOSITORY, python: PYTHON, sizes: SIZES };

/**
 * Puts a fixture into an image as a layer of its own.
 *
 * @param {import("./workspace.mjs").Workspace} workspace
 * @param {object} opened an image as `benchImage` hands it to its `extend`
 * @param {"repository" | "python" | "sizes"} fixture
 */
export function addFixture(workspace, opened, fixture) {
  const tree = workspace.makeDir("fixture");
  const dir = path.join(tree, places[fixture]);
  mkdirSync(dir, { recursive: true });
  makers[fixture](dir);
  addLayer(workspace, opened, tree, `fixture ${fixture}`);
  workspace.remove(tree);
}
