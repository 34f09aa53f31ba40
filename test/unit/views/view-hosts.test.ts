/** The threads that serve views. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ViewHosts } from "../../../src/views/view-hosts.js";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-hosts-"));
});

afterEach(() => rmSync(directory, { recursive: true }));

const log = () => path.join(directory, "log");

/** Threads that write a line when they start, and another one for each call. */
function hosts(isAhead: boolean): ViewHosts {
  const file = path.join(directory, "worker.mjs");
  const write = (text: string) => `appendFileSync(${JSON.stringify(log())}, "${text}\\n");`;
  writeFileSync(
    file,
    `import { appendFileSync } from "node:fs";
     import { parentPort } from "node:worker_threads";
     ${write("start")}
     parentPort.on("message", ({ call }) => {
       ${write("call")}
       parentPort.postMessage({ call, result: { io: "cached" } });
     });`,
  );
  writeFileSync(log(), "");
  const ignore = () => undefined;
  const events = { onEnded: ignore, onCrashed: ignore, onWarning: ignore };
  return new ViewHosts({ size: 2, quickWakeUps: false, isAhead, file, events });
}

const lines = () => readFileSync(log(), "utf8").split("\n").slice(0, -1);

async function until(isDone: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 500 && !isDone(); attempt++) await sleep(10);
  expect(isDone(), lines().join()).toBe(true);
}

function mount(viewHosts: ViewHosts, viewId: string): Promise<unknown> {
  return viewHosts.mount({
    ...{ viewId, target: "/nowhere", readOnly: true, privileged: true, io: "cached" },
    ...{ indexPath: undefined, layerDirs: [], upperDir: undefined, workDir: undefined },
  });
}

describe("threads", () => {
  it("start when they are needed, and one without views is taken before another is started", async () => {
    const some = hosts(false);
    try {
      await mount(some, "a");
      await mount(some, "b");
      await mount(some, "c");
      expect(lines()).toEqual(["start", "call", "start", "call", "call"]);
    } finally {
      await some.close();
    }
  });

  it("that are started ahead are there before the mount, up to their number", async () => {
    const some = hosts(true);
    try {
      await until(() => lines().length === 1);
      await mount(some, "a");
      await until(() => lines().join() === "start,call,start");
      await mount(some, "b");
      await mount(some, "c");
      expect(lines()).toEqual(["start", "call", "start", "call", "call"]);
    } finally {
      await some.close();
    }
  });
});
