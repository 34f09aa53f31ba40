import { execFileSync } from "node:child_process";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { compareTrees, readTree } from "../../tools/tree.js";

let directory: string;

function plant(name: string): string {
  const root = join(directory, name);
  mkdirSync(join(root, "d"), { recursive: true });
  writeFileSync(join(root, "d/file"), "content");
  writeFileSync(join(root, "other"), "other");
  linkSync(join(root, "other"), join(root, "linked"));
  symlinkSync("d/file", join(root, "link"));
  writeFileSync(Buffer.from(`${root}/\xff\n`, "latin1"), "bytes");
  execFileSync("mkfifo", [join(root, "fifo")]);
  for (const path of ["d/file", "other", "fifo", "d", ""]) utimesSync(join(root, path), 1, 2);
  execFileSync("touch", ["-h", "-d", "@2", join(root, "link")]);
  utimesSync(Buffer.from(`${root}/\xff\n`, "latin1"), 1, 2);
  utimesSync(root, 1, 2);
  return root;
}

const differences = (left: string, right: string) => compareTrees(readTree(left), readTree(right));

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "varve-tree-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe("the tree comparer", () => {
  it("finds nothing between two trees made alike", () => {
    expect(differences(plant("a"), plant("b"))).toEqual([]);
  });

  const changes: Record<string, { change(root: string): void; shows: RegExp }> = {
    "a missing name": { change: (root) => rmSync(join(root, "d/file")), shows: /only on the left/ },
    "an additional name": {
      change: (root) => writeFileSync(join(root, "new"), ""),
      shows: /only on the right/,
    },
    "another content of the same length and time": {
      change: (root) => {
        writeFileSync(join(root, "d/file"), "CONTENT");
        utimesSync(join(root, "d/file"), 1, 2);
      },
      shows: /"\/d\/file": content/,
    },
    "another mode": {
      change: (root) => chmodSync(join(root, "d"), 0o700),
      shows: /mode 755 \/ 700/,
    },
    "another time": {
      change: (root) => utimesSync(join(root, "d/file"), 1, 2.5),
      shows: /"\/d\/file": mtime/,
    },
    "another symlink target": {
      change: (root) => {
        rmSync(join(root, "link"));
        symlinkSync("elsewhere", join(root, "link"));
      },
      shows: /target d\/file \/ elsewhere/,
    },
    "a hard link that became a copy": {
      change: (root) => {
        rmSync(join(root, "linked"));
        writeFileSync(join(root, "linked"), "other");
        utimesSync(join(root, "linked"), 1, 2);
      },
      shows: /linkGroup/,
    },
    "another type": {
      change: (root) => {
        rmSync(join(root, "fifo"));
        writeFileSync(join(root, "fifo"), "");
      },
      shows: /type fifo \/ file/,
    },
    "an extended attribute": {
      change: (root) => execFileSync("setfattr", ["-n", "user.x", "-v", "1", join(root, "other")]),
      shows: /xattrs/,
    },
    "a change below a name that is no text": {
      change: (root) => writeFileSync(Buffer.from(`${root}/\xff\n`, "latin1"), "other bytes"),
      shows: /ÿ\\n": content/,
    },
  };
  for (const [what, { change, shows }] of Object.entries(changes)) {
    it(`finds ${what}`, () => {
      const left = plant("a");
      const right = plant("b");
      change(right);
      expect(differences(left, right).join("\n")).toMatch(shows);
    });
  }
});
