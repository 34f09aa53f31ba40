/**
 * Programs in a view that change what names mean while the daemon works with them cannot make it touch
 * anything outside: neither what they do there, nor what the daemon reads of the view for its commands.
 *
 * `scripts/conformance/races` runs each race for a minute instead of a moment.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { text } from "node:stream/consumers";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { View } from "../../../src/services/gen/varve/v1/varve_pb.js";
import { compareTrees, readTree } from "../../tools/tree.js";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const SECONDS = Number(process.env.VARVE_TEST_RACE_SECONDS ?? 1);
/** Of one view, after which a new one is taken: of each file of the image there is one copy-up to be had. */
const ROUND_SECONDS = Math.min(SECONDS, 1.5);
const PROGRAM = path.join(import.meta.dirname, "race.py");
const SECRET = "secret of the host";
const FILES = Array.from({ length: 40 }, (_, at) => `n${at}`);

const sandbox = new DaemonSandbox();
const outside = sandbox.path("outside");

/** The same names in the image and outside, with another content. */
function plant(tree: string, content: string, uid: number): void {
  for (const directory of ["d/sub", "e/sub", "etc"]) {
    mkdirSync(path.join(tree, directory), { recursive: true });
  }
  for (const file of FILES) {
    for (const directory of ["d", "d/sub", "e"]) {
      writeFileSync(path.join(tree, directory, file), `${content}\n`);
    }
  }
  // Copied up beside other requests.
  writeFileSync(path.join(tree, "d/large"), Buffer.alloc(6 << 20, content));
  writeFileSync(path.join(tree, "etc/passwd"), `app:x:${uid}:${uid}:${content}:/:/bin/sh\n`);
  writeFileSync(path.join(tree, "etc/group"), `app:x:${uid}:\n`);
}

beforeAll(async () => {
  mkdirSync(outside);
  plant(outside, SECRET, 4242);
  await sandbox.start();
  const fill = (tree: string) => plant(tree, "of the image", 1000);
  await sandbox.load(makeLayout(sandbox.path("layout"), "docker.io/library/small:latest", fill));
  await sandbox.mount({ image: "small", name: "first" });
  await sandbox.commit({ name: "first", reference: "racer", changes: ["USER app"] });
});

afterAll(() => sandbox.dispose());

interface Counts {
  done: number;
  refused: number;
  leaks: number;
}

/** What a program says at its end. */
async function answerOf(child: ChildProcess): Promise<unknown> {
  const said = await text(child.stdout!);
  return JSON.parse(said.trim().split("\n").at(-1) ?? "");
}

async function race(target: string, roles: readonly (readonly string[])[]): Promise<Counts[]> {
  const programs = roles.map(([role = "", ...names]) =>
    spawn("python3", [PROGRAM, role, target, String(ROUND_SECONDS), ...names], {
      stdio: ["ignore", "pipe", "inherit"],
    }),
  );
  return Promise.all(programs.map((child) => answerOf(child) as Promise<Counts>));
}

/** Runs `work`, during which nobody may open, read or change anything outside. */
async function untouched(work: () => Promise<void>): Promise<void> {
  const before = readTree(outside);
  const watcher = spawn("python3", [PROGRAM, "watch", outside, "0"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  try {
    await once(watcher.stdout, "data");
    const answer = answerOf(watcher);
    await work();
    watcher.stdin.end();
    expect(await answer).toEqual({ events: 0 });
  } finally {
    watcher.kill("SIGKILL");
  }
  expect(compareTrees(before, readTree(outside))).toEqual([]);
}

interface Race {
  /** Symbolic links to be made in the view: name, text. */
  readonly links: (view: View) => readonly (readonly [string, string])[];
  readonly roles: readonly (readonly string[])[];
  /** What the daemon is asked to do meanwhile, again and again. */
  readonly ask?: (view: View) => Promise<void>;
}

/** Rounds of a race, each in a new view, in both I/O modes by turns. */
async function run({ links, roles, ask }: Race): Promise<void> {
  const sums = roles.map(() => ({ done: 0, refused: 0, leaks: 0 }));
  await untouched(async () => {
    const end = Date.now() + SECONDS * 1000;
    for (let round = 0; round === 0 || Date.now() < end; round++) {
      const io = round % 2 === 0 ? "cached" : "passthrough";
      const view = await sandbox.mount({ image: "racer", name: "race", io });
      // By another process: nothing of the view may be open here when the daemon is asked to unmount it.
      for (const [name, to] of links(view)) symlinkSync(to, path.join(view.target, name));
      const racing = race(view.target, roles);
      const isOver = racing.then(() => true);
      const next = () => Promise.race([isOver, ask?.(view).then(() => false) ?? isOver]);
      while (!(await next()));
      for (const [role, counts] of (await racing).entries()) {
        const sum = sums[role]!;
        sum.done += counts.done;
        sum.refused += counts.refused;
        sum.leaks += counts.leaks;
      }
      await sandbox.client.removeView({ name: "race", force: true });
    }
  });
  if (process.env.VARVE_TEST_RACE_SECONDS !== undefined) console.log(JSON.stringify(sums));
  for (const { done, leaks } of sums) {
    expect(leaks).toBe(0);
    expect(done).toBeGreaterThan(20);
  }
}

const within = (directory: string) => FILES.map((file) => `/${directory}/${file}`);
const timeout = { timeout: 60_000 + SECONDS * 2000 };

it("by symlinks that take a directory's or file's place under copy-up", timeout, () =>
  run({
    links: ({ upperDir }) => [
      ["to-d", path.join(outside, "d")],
      ["to-e", path.join(path.relative(upperDir, outside), "e")],
      ["d/to-n0", path.join(outside, "d/n0")],
      ["d/to-large", path.join(path.relative(path.join(upperDir, "d"), outside), "d/large")],
    ],
    roles: [
      ["swap", "/d", "/to-d", "/e", "/to-e"],
      ["swap", "/d/n0", "/d/to-n0", "/d/large", "/d/to-large"],
      ["churn", ...within("d"), "/d/large", "/d/sub/n1"],
      ["churn", "/d/n0", "/d/large", ...within("e")],
    ],
  }),
);

it("by moving directories into each other while files in them are copied up", timeout, () =>
  run({
    links: () => [["d/sub/up", "../../../../../../outside/d"]],
    roles: [
      ["shuffle", "/d/sub", "/e/sub", "/e", "/d"],
      ["swap", "/d", "/e", "/d/sub", "/e/n1"],
      ["churn", ...within("d/sub"), "/d/large"],
      ["churn", ...within("e"), "/d/sub/../n3", "/e/in/n3"],
    ],
  }),
);

it("by links through /proc, whose targets the kernel takes from who follows them", timeout, () =>
  run({
    links: () => [
      ["magic", `/proc/self/root${outside}/d`],
      ["here", `/proc/self/cwd${"/..".repeat(20)}${outside}/e`],
      ...Array.from({ length: 20 }, (_, fd) => [`d/fd${fd}`, `/proc/self/fd/${fd + 3}`] as const),
      ["e/thread", `/proc/thread-self/root${outside}/e/n1`],
    ],
    roles: [
      ["swap", "/d", "/magic", "/e", "/here", "/e/n1", "/e/thread"],
      ["swap", ...FILES.slice(0, 20).flatMap((file, fd) => [`/d/${file}`, `/d/fd${fd}`])],
      ["churn", ...within("d"), ...within("e")],
      ["churn", ...FILES.slice(0, 20).map((_, fd) => `/d/fd${fd}`), "/magic/n2", "/here/n3"],
    ],
  }),
);

it(
  "while the daemon reads the view for a commit, a list of changes and a bundle",
  timeout,
  async () => {
    let made = 0;
    await run({
      links: ({ upperDir }) => [
        ["to-etc", path.join(outside, "etc")],
        [
          "etc/to-passwd",
          path.join(path.relative(path.join(upperDir, "etc"), outside), "etc/passwd"),
        ],
        ["to-d", `/proc/self/root${outside}/d`],
      ],
      roles: [
        ["swap", "/etc", "/to-etc", "/etc/passwd", "/etc/to-passwd", "/d", "/to-d"],
        ["churn", "/etc/group", ...within("d")],
      ],
      ask: async ({ name }) => {
        const directory = sandbox.path(`bundle-${++made}`);
        await sandbox.diff(name);
        await sandbox.commit({ name, reference: "raced" });
        // Now and then the user is not to be found: its file was a link that leads nowhere inside.
        const isMade = await sandbox.client.createBundle({ name, directory }).then(
          () => true,
          (error) => expect(error.code).toBe("FAILED_PRECONDITION"),
        );
        if (isMade !== true) return;
        const config = JSON.parse(readFileSync(path.join(directory, "config.json"), "utf8"));
        expect(config.process.user).toMatchObject({ uid: 1000, gid: 1000 });
        rmSync(directory, { recursive: true });
      },
    });
    expect(made).toBeGreaterThan(0);
    const blobs = sandbox.path("root/blobs/sha256");
    for (const name of readdirSync(blobs)) {
      const blob = readFileSync(path.join(blobs, name));
      const content = blob.readUInt16BE(0) === 0x1f8b ? gunzipSync(blob) : blob;
      expect(content.includes(SECRET)).toBe(false);
    }
  },
);
