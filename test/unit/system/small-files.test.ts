import { execFileSync } from "node:child_process";
import { mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { sys } from "../../../src/system/addon.js";
import * as E from "../../../src/system/errno.js";
import { READ_COUNT, READ_INO, READ_SIZE, READ_SLOTS } from "../../../src/system/native.js";
import { makeScratch } from "./scratch.js";

/** Reads `wanted` bytes of each, and says what became of each. */
async function read(dirfd: number, files: Record<string, number>) {
  const wanted = Object.values(files);
  const numbers = new Float64Array(wanted.flatMap((bytes) => [bytes, 0, 0]));
  const paths = Buffer.from(
    Object.keys(files)
      .map((name) => `${name}\0`)
      .join(""),
    "latin1",
  );
  const out = Buffer.alloc(
    wanted.reduce((sum, bytes) => sum + bytes, 0),
    "-",
  );
  expect(await sys.readFilesAsync(dirfd, paths, numbers, out)).toBe(0);
  const answers = wanted.map((_, place) => {
    const at = place * READ_SLOTS;
    return {
      count: numbers[at + READ_COUNT]!,
      inode: numbers[at + READ_INO]!,
      size: numbers[at + READ_SIZE]!,
    };
  });
  return { answers, out: out.toString("latin1") };
}

describe("readFilesAsync", () => {
  it("puts the content of each into its room", async () => {
    const { fd, path } = makeScratch();
    mkdirSync(`${path}/d`);
    writeFileSync(`${path}/a`, "first");
    writeFileSync(`${path}/d/empty`, "");
    writeFileSync(Buffer.from(`${path}/d/raw\xff`, "latin1"), "by bytes");
    const { answers, out } = await read(fd, { a: 5, "d/empty": 0, "d/raw\xff": 8 });
    expect(out).toBe("firstby bytes");
    expect(answers.map(({ count }) => count)).toEqual([5, 0, 8]);
    expect(answers[0]!.inode).toBe(statSync(`${path}/a`).ino);
  });

  it("tells what has become longer or shorter", async () => {
    const { fd, path } = makeScratch();
    writeFileSync(`${path}/longer`, "0123456789");
    writeFileSync(`${path}/shorter`, "01");
    const { answers, out } = await read(fd, { longer: 4, shorter: 4 });
    expect(out).toBe("012301--");
    expect(answers.map(({ count, size }) => [count, size])).toEqual([
      [4, 10],
      [2, 2],
    ]);
  });

  it("opens nothing but what is beneath the directory, and is not held up", async () => {
    const { fd, path } = makeScratch();
    writeFileSync(`${path}/file`, "x");
    symlinkSync("file", `${path}/link`);
    symlinkSync("/etc", `${path}/out`);
    execFileSync("mkfifo", [`${path}/fifo`]);
    const { answers, out } = await read(fd, {
      link: 1,
      "out/passwd": 1,
      "../etc": 1,
      "/etc/passwd": 1,
      gone: 1,
      fifo: 1,
      file: 1,
    });
    expect(answers.map(({ count }) => count)).toEqual([
      -E.ELOOP,
      -E.ELOOP,
      -E.EXDEV,
      -E.EXDEV,
      -E.ENOENT,
      -E.ESPIPE,
      1,
    ]);
    expect(out).toBe("------x");
  });

  it.each([
    ["a file without a path", "a\0", [1, 0, 0, 1, 0, 0], 2],
    ["a path without an end", "a\0b", [1, 0, 0, 1, 0, 0], 2],
    ["a part of a file's numbers", "a\0", [1, 0], 2],
    ["more bytes than there is room for", "a\0b\0", [1, 0, 0, 2, 0, 0], 2],
    ["fewer bytes than none", "a\0", [-1, 0, 0], 2],
    ["no number of bytes", "a\0", [Number.NaN, 0, 0], 2],
  ])("refuses %s", (_, paths, numbers, room) => {
    const { fd } = makeScratch();
    const answer = sys.readFilesAsync(
      fd,
      Buffer.from(paths),
      new Float64Array(numbers),
      Buffer.alloc(room),
    );
    expect(answer).toBe(-E.EINVAL);
  });
});
