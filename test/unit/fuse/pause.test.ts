import { spawn } from "node:child_process";
import { once } from "node:events";
import { setImmediate, setTimeout } from "node:timers/promises";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import * as c from "../../../src/fuse/constants.js";
import { Pause } from "../../../src/fuse/pause.js";
import { RequestBuffer } from "../../../src/fuse/request.js";
import { Waiting } from "../../../src/fuse/waiting.js";
import { O_CREAT, O_RDONLY, O_RDWR, O_TRUNC } from "../../../src/system/constants.js";
import { deliver, encodeRequest } from "./request-encoder.js";

const request = new RequestBuffer();
let flag: Int32Array;
let underWay: Waiting;
let pause: Pause;

beforeEach(() => {
  flag = new Int32Array(new SharedArrayBuffer(4));
  underWay = new Waiting();
  pause = new Pause(underWay);
});

function isHeld(opcode: number, flags = 0): boolean {
  deliver(
    request,
    encodeRequest({ opcode }, [
      [32, flags],
      [32, 0],
    ]),
  );
  return pause.holds(request) !== undefined;
}

/** struct fuse_write_in */
function isWriteHeld(node: number, offset: number, size: number, pid = 0): boolean {
  const fields = [
    [64, 0],
    [64, offset],
    [32, size],
    [32, 0],
    [64, 0],
    [64, 0],
  ] as const;
  deliver(request, encodeRequest({ opcode: c.FUSE_WRITE, node, pid }, fields));
  return pause.holds(request) !== undefined;
}

describe("during a pause", () => {
  it("what would change something waits, and says so; reading goes on", async () => {
    expect(isHeld(c.FUSE_MKDIR)).toBe(false);
    await pause.begin(flag);
    for (const opcode of [
      c.FUSE_LOOKUP,
      c.FUSE_GETATTR,
      c.FUSE_READ,
      c.FUSE_READDIRPLUS,
      c.FUSE_FSYNC,
    ]) {
      expect(isHeld(opcode)).toBe(false);
    }
    expect(flag[0]).toBe(0);
    for (const opcode of [
      c.FUSE_MKDIR,
      c.FUSE_UNLINK,
      c.FUSE_RENAME2,
      c.FUSE_SETATTR,
      c.FUSE_SETXATTR,
    ]) {
      expect(isHeld(opcode)).toBe(true);
    }
    expect(flag[0]).toBe(1);
    expect(isWriteHeld(5, 0, 10)).toBe(true);
    pause.end();
    expect(isHeld(c.FUSE_MKDIR)).toBe(false);
  });

  it("only opens that may change a file wait", async () => {
    await pause.begin(flag);
    expect(isHeld(c.FUSE_OPEN, O_RDONLY)).toBe(false);
    expect(isHeld(c.FUSE_OPEN, O_RDWR)).toBe(true);
    expect(isHeld(c.FUSE_OPEN, O_RDONLY | O_TRUNC)).toBe(true);
    expect(isHeld(c.FUSE_CREATE, O_CREAT)).toBe(true);
  });

  it("who waits goes on in the order of coming", async () => {
    await pause.begin(flag);
    const order: number[] = [];
    const waiters = [1, 2, 3].map((number) => {
      isHeld(c.FUSE_MKDIR);
      return pause.holds(request)!.then(() => order.push(number));
    });
    expect(order).toEqual([]);
    pause.end();
    await Promise.all(waiters);
    expect(order).toEqual([1, 2, 3]);
  });

  it("there is no second one, and another after its end", async () => {
    await pause.begin(flag);
    await expect(pause.begin(flag)).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    pause.end();
    expect(pause.isOn).toBe(false);
    await pause.begin(flag);
    expect(pause.isOn).toBe(true);
  });
});

it("a pause begins when changes under way are done, and does not wait for flushes", async () => {
  let finish: () => void = () => {};
  const copying = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const steps: string[] = [];
  const request = { unique: 1, caller: { pid: 0 } };
  underWay.after(request, copying, true, () => steps.push("copied"));
  underWay.after({ ...request, unique: 2 }, new Promise(() => {}), false, () => {});
  const begun = pause.begin(flag).then(() => steps.push("begun"));
  await setImmediate();
  expect(isHeld(c.FUSE_MKDIR)).toBe(false);
  finish();
  await begun;
  expect(isHeld(c.FUSE_MKDIR)).toBe(true);
  expect(steps).toEqual(["copied", "begun"]);
});

describe("a write that comes in pieces", () => {
  const MIB = 1 << 20;

  it("is let through to its end", async () => {
    isWriteHeld(5, 4096 - 96, MIB - 4000);
    const begun = pause.begin(flag);
    await setImmediate();
    expect(isWriteHeld(6, MIB, MIB)).toBe(true);
    expect(isWriteHeld(5, 2 * MIB, MIB)).toBe(true);
    expect(isWriteHeld(5, MIB, MIB)).toBe(false);
    expect(isWriteHeld(5, 2 * MIB, 100)).toBe(false);
    expect(isWriteHeld(5, 2 * MIB + 100, 100)).toBe(true);
    await begun;
    expect(isWriteHeld(5, 3 * MIB, MIB)).toBe(true);
  });

  it("is waited for as often as this thread has a core, however long that takes", async () => {
    isWriteHeld(5, 0, MIB);
    const begun = pause.begin(flag);
    // Nobody else has had a core meanwhile.
    const until = performance.now() + 80;
    while (performance.now() < until);
    await setImmediate();
    expect(isWriteHeld(5, MIB, 100)).toBe(false);
    await begun;
  });

  it("is waited for while its thread would run if there were a core for it", async () => {
    const writer = spawn("sh", ["-c", "while :; do :; done"], { stdio: "ignore" });
    onTestFinished(() => {
      writer.kill("SIGKILL");
    });
    await once(writer, "spawn");
    isWriteHeld(5, 0, MIB, writer.pid);
    const begun = pause.begin(flag);
    await setTimeout(150);
    expect(isWriteHeld(5, MIB, MIB, writer.pid)).toBe(false);
    // Stopped: it is not within the write any more.
    writer.kill("SIGSTOP");
    await begun;
    expect(isWriteHeld(5, 2 * MIB, 100, writer.pid)).toBe(true);
  });

  it("is not waited for without end", async () => {
    isWriteHeld(5, 0, MIB, process.pid);
    await pause.begin(flag);
    expect(isWriteHeld(5, MIB, 100, process.pid)).toBe(true);
  });

  it("ends when no further piece comes", async () => {
    isWriteHeld(5, 0, MIB);
    await pause.begin(flag);
    expect(isWriteHeld(5, MIB, 100)).toBe(true);
  });
});
