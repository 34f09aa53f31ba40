/** Commits while programs write in the view: each image is a state that the view was in. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { makeImage, run, Sandbox, shell } from "./sandbox.js";

/** Runs in the view until it is killed. Each writer keeps a promise that every single state must keep. */
const WRITERS = `
import os, sqlite3, sys, threading, time
os.chdir(sys.argv[1])
rest = float(sys.argv[2])
def counters():                  # "z" is never ahead of "a", nor behind by more than one
    n = 0
    while True:
        n += 1
        for name in ("a", "z"):
            with open("new", "w") as f: f.write(str(n))
            os.rename("new", name)
        time.sleep(rest)
def appender():                  # numbered lines, in the log and then in its copy
    log, copy = open("log", "ab", 0), open("the-copy", "ab", 0)
    n = 0
    while True:
        line = b"%d\\n" % n
        log.write(line); copy.write(line)
        n += 1
        time.sleep(rest)
def mover():                     # one file, at one place
    here, there = "dir1/file", "dir9/file"
    while True:
        os.rename(here, there); here, there = there, here
        time.sleep(rest)
def painter():                   # 3 MiB of one byte, in one call that comes to the daemon in pieces
    canvas = os.open("canvas", os.O_WRONLY)
    while True:
        for colour in b"abc":
            os.pwrite(canvas, bytes([colour]) * 3145728, 0)
            time.sleep(rest)
def accounts():                  # the sum stays
    db = sqlite3.connect("bank.db")
    while True:
        with db:
            db.execute("update account set money = money - 1 where id = 1")
            db.execute("update account set money = money + 1 where id = 2")
            db.execute("insert into history(note) values (hex(randomblob(400)))")
        time.sleep(rest)
for name in sys.argv[3:]: threading.Thread(target=globals()[name]).start()
`;

let sandbox: Sandbox;
let writers: ChildProcess | undefined;

beforeAll(() => {
  sandbox = new Sandbox("pause");
  makeImage("busybox", sandbox.path("busybox.tar"));
  sandbox.varve("load", "-q", "-i", sandbox.path("busybox.tar"));
  writeFileSync(sandbox.path("writers.py"), WRITERS);
});

afterEach(async () => {
  if (writers === undefined) return;
  writers.kill("SIGKILL");
  await once(writers, "exit");
  writers = undefined;
});

afterAll(() => sandbox?.dispose());

interface Plan {
  readonly io: "cached" | "passthrough";
  readonly journal: "delete" | "wal";
  /** Seconds between the steps of each writer. */
  readonly rest: number;
  readonly writers: readonly string[];
}

/** Starts the writers in a new view; its path. */
async function startWriters(name: string, plan: Plan): Promise<string> {
  const view = sandbox.mount("busybox", name, "--io", plan.io);
  const database = `import sqlite3; sqlite3.connect("bank.db").executescript("""
    pragma journal_mode=${plan.journal}; create table account(id, money);
    insert into account values (1, 500), (2, 500); create table history(note);""")`;
  shell(`mkdir ${view}/w; cd ${view}/w; mkdir dir1 dir9; echo moved > dir1/file; echo 0 > a; echo 0 > z
    head -c 3145728 /dev/zero | tr '\\0' c > canvas
    head -c 8000000 /dev/urandom > between; touch log the-copy; python3 -c '${database}'`);
  const args = [sandbox.path("writers.py"), join(view, "w"), String(plan.rest), ...plan.writers];
  writers = spawn("python3", args, { stdio: ["ignore", "ignore", "inherit"] });
  await isGrowing(join(view, "w/log"));
  return view;
}

async function isGrowing(file: string): Promise<void> {
  const { length } = readFileSync(file);
  while (readFileSync(file).length < length + 20) await sleep(10);
}

function checkState(dir: string): void {
  const read = (name: string) => readFileSync(join(dir, name), "utf8");
  const [a, z] = [Number(read("a")), Number(read("z"))];
  expect([a, a - 1]).toContain(z);
  const lines = read("log").split("\n");
  expect(lines).toEqual([...lines.slice(0, -1).map((_, number) => String(number)), ""]);
  expect([0, 1]).toContain(lines.length - read("the-copy").split("\n").length);
  expect([1, 9].filter((number) => existsSync(join(dir, `dir${number}/file`)))).toHaveLength(1);
  const canvas = readFileSync(join(dir, "canvas"));
  expect(canvas.equals(Buffer.alloc(3145728, canvas[0]))).toBe(true);
  const sum = `import sqlite3; db = sqlite3.connect("${dir}/bank.db")
print(db.execute("pragma integrity_check").fetchone()[0], db.execute("select sum(money) from account").fetchone()[0])`;
  expect(run("python3", ["-c", sum])).toBe("ok 1000\n");
}

const ALL = ["counters", "appender", "mover", "painter", "accounts"];
const PLANS: readonly Plan[] = [
  { io: "cached", journal: "delete", rest: 0, writers: ALL },
  { io: "cached", journal: "wal", rest: 0, writers: ALL },
  // Who has a file open writes past the daemon: its files are copied when they are still for a moment.
  { io: "passthrough", journal: "wal", rest: 0.15, writers: ["appender", "accounts"] },
  {
    io: "passthrough",
    journal: "delete",
    rest: 0.15,
    writers: ["counters", "mover", "painter", "appender"],
  },
];

describe("while programs write", () => {
  it.each(PLANS)("$io, $journal: an image is a state that the view was in", async (plan) => {
    const name = `${plan.io}-${plan.journal}`;
    const view = await startWriters(name, plan);
    const images = [1, 2].map((number) => `${name}${number}`);
    for (const image of images) {
      expect(sandbox.try("commit", "-q", name, image)).toMatchObject({ status: 0, stderr: "" });
    }
    await isGrowing(join(view, "w/log"));
    for (const image of images) checkState(join(sandbox.mount(image, `look-${image}`), "w"));
  });

  it("--pause=false lets them write, and archive and digests agree all the same", async () => {
    const view = await startWriters("loose", PLANS[0]!);
    sandbox.varve("commit", "-q", "--pause=false", "loose", "loose1");
    await isGrowing(join(view, "w/log"));
    expect(existsSync(join(sandbox.mount("loose1", "look-loose"), "w/log"))).toBe(true);
  });

  it("two commits at once of one view, and one of its image's other view, all succeed", async () => {
    const view = await startWriters("busy", PLANS[0]!);
    sandbox.mount("busybox", "quiet");
    shell(
      `for n in 1 2; do "$0" commit -q busy busy$n & p="$p $!"; done
       "$0" commit -q quiet quiet1 & p="$p $!"; for one in $p; do wait $one; done`.replaceAll(
        '"$0"',
        `${process.cwd()}/bin/varve`,
      ),
      { env: { ...sandbox.env, p: "" } },
    );
    await isGrowing(join(view, "w/log"));
    for (const image of ["busy1", "busy2"]) {
      checkState(join(sandbox.mount(image, `look-${image}`), "w"));
    }
  });
});
