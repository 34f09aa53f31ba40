/** Progress: frames for terminals of any size, and what reaches the stream. */

import { Writable } from "node:stream";
import { describe, expect, it, vi } from "vitest";
import { BarDisplay, createProgress } from "../../../src/cli/progress.js";
import { type ProgressTask, renderFrame } from "../../../src/cli/progress-frame.js";
import { displayWidth } from "../../../src/cli/terminal-text.js";

function task(fields: Partial<ProgressTask>): ProgressTask {
  return {
    id: `sha256:${"a1b2c3d4e5f6".repeat(6).slice(0, 64)}`,
    action: "unpacking",
    current: 0,
    total: 0,
    sinceMs: 0,
    sinceBytes: 0,
    ...fields,
  };
}

const SIZE_80 = { columns: 80, rows: 24 };

describe("a progress frame", () => {
  it("shows action, bar, bytes and rate on 80 columns", () => {
    const half = task({ current: 36_172_839, total: 72_345_678 });
    expect(renderFrame([half], SIZE_80, 1000)).toEqual([
      "a1b2c3d4e5f6  Unpacking   [============>           ]  36.2MB / 72.3MB  36.2MB/s",
    ]);
  });

  it("keeps the rate on 80 columns beside a long reference", () => {
    const name = task({ id: "registry.example:5000/team/app:1", action: "done" });
    const half = task({ action: "downloading", current: 36_172_839, total: 72_345_678 });
    expect(renderFrame([name, half], SIZE_80, 1000)[1]).toMatch(
      /36\.2MB \/ 72\.3MB {2}36\.2MB\/s$/,
    );
  });

  it("has bars of one length whatever the figures", () => {
    const lines = renderFrame(
      [
        task({ current: 5, total: 9 }),
        task({ current: 5_550_000_000, total: 9_990_000_000 }),
        task({ action: "packing", current: 0, total: 1_000_000 }),
      ],
      SIZE_80,
      2000,
    );
    expect(new Set(lines.map((line) => line.indexOf("]"))).size).toBe(1);
  });

  it("shows bytes without a bar when the total is unknown, and nothing for what is done", () => {
    expect(renderFrame([task({ current: 5_000_000 })], SIZE_80, 1000)).toEqual([
      "a1b2c3d4e5f6  Unpacking   5MB  5MB/s",
    ]);
    const done = task({ action: "done", current: 9, total: 9 });
    expect(renderFrame([done], SIZE_80, 0)).toEqual(["a1b2c3d4e5f6  Done"]);
  });

  it.each([200, 120, 80, 60, 50, 40, 30, 20, 12, 5])(
    "is never wider than %d columns",
    (columns) => {
      const tasks = [
        task({ current: 36_172_839, total: 72_345_678 }),
        task({ id: "registry.example:5000/team/a-rather-long-name:version", action: "loading" }),
        task({ id: "日本語の名前がここに立つ", action: "verifying", current: 5, total: 10 }),
      ];
      for (const line of renderFrame(tasks, { columns, rows: 24 }, 5000)) {
        expect(displayWidth(line)).toBeLessThanOrEqual(Math.max(10, columns - 1));
      }
    },
  );

  it("drops the rate, then the bar, then the bytes as it gets narrow", () => {
    const half = task({ current: 36_172_839, total: 72_345_678 });
    const at = (columns: number) => renderFrame([half], { columns, rows: 24 }, 1000)[0] ?? "";
    expect(at(60)).toBe("a1b2c3d4e5f6  Unpacking   [=======>      ]  36.2MB / 72.3MB");
    expect(at(45)).toBe("a1b2c3d4e5f6  Unpacking   36.2MB / 72.3MB");
    expect(at(35)).toBe("a1b2c3d4e5f6  Unpacking   50%");
  });

  it("is shorter than the terminal is high, and keeps what is under way", () => {
    const tasks = [
      ...Array.from({ length: 10 }, (_, n) => task({ id: `done${n}`, action: "done" })),
      ...Array.from({ length: 3 }, (_, n) => task({ id: `busy${n}`, current: 1, total: 2 })),
      ...Array.from({ length: 4 }, (_, n) => task({ id: `wait${n}`, action: "waiting" })),
    ];
    const lines = renderFrame(tasks, { columns: 80, rows: 7 }, 0);
    expect(lines).toHaveLength(6);
    expect(lines.filter((line) => line.startsWith("busy"))).toHaveLength(3);
    expect(lines.at(-1)).toBe("and 12 more: 2 waiting, 10 done");
  });

  it("keeps control characters of a daemon's answer off the terminal", () => {
    expect(renderFrame([task({ id: "a\x1b[2J" })], SIZE_80, 0).join("")).not.toContain("\x1b");
  });
});

/** A terminal that knows rows, columns and the three sequences that the display uses. */
class FakeTerminal extends Writable {
  readonly isTTY = true;
  columns = 80;
  rows = 24;
  lines: string[] = [""];

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    let text = chunk.toString().replaceAll("\x1b", "␛");
    while (text !== "") {
      const up = /^\r?␛\[(\d+)A/.exec(text);
      const erase = /^␛\[J/.exec(text);
      const line = /^([^␛\n]*)\n/.exec(text);
      if (up) this.lines.splice(this.lines.length - 1 - Number(up[1]));
      else if (erase) this.lines.push("");
      else if (line) this.lines.splice(-1, 1, (this.lines.at(-1) ?? "") + line[1], "");
      else throw new Error(`unexpected output ${JSON.stringify(text)}`);
      text = text.slice((up ?? erase ?? line ?? [text])[0].length);
    }
    done();
  }
}

const step = (id: string, action: string, current: number, total: number) => ({
  id,
  action,
  current: BigInt(current),
  total: BigInt(total),
});

describe("a progress display", () => {
  it("redraws bars in place on a terminal and leaves nothing behind", () => {
    vi.useFakeTimers();
    try {
      const terminal = new FakeTerminal();
      const display = createProgress(terminal, false, {});
      display.update(step("one", "unpacking", 1, 10));
      vi.advanceTimersByTime(100);
      expect(terminal.lines).toHaveLength(2);
      display.update(step("two", "unpacking", 1, 10));
      display.update(step("one", "done", 10, 10));
      vi.advanceTimersByTime(500);
      expect(terminal.lines.map((line) => line.slice(0, 22).trimEnd())).toEqual([
        "one           Done",
        "two           Unpackin",
        "",
      ]);
      display.finish();
      expect(terminal.lines).toEqual([""]);
      vi.advanceTimersByTime(500);
      expect(terminal.lines).toEqual([""]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("erases the rows that its lines wrapped to when the terminal became narrower", () => {
    vi.useFakeTimers();
    try {
      const written: string[] = [];
      const terminal = Object.assign(new FakeTerminal(), { columns: 80 });
      terminal._write = (chunk: Buffer, _encoding: string, done: () => void) => {
        written.push(chunk.toString());
        done();
      };
      const display = new BarDisplay(terminal);
      display.update(step("one", "unpacking", 1, 10));
      vi.advanceTimersByTime(100);
      terminal.columns = 30;
      terminal.emit("resize");
      // A line of more than 60 columns stands on three rows of 30.
      expect(written.at(-1)).toMatch(/^\r.\[[23]A.\[J/);
      display.finish();
    } finally {
      vi.useRealTimers();
    }
  });

  it("draws for 80 columns on a serial console, which says that it has none", () => {
    vi.useFakeTimers();
    try {
      const terminal = Object.assign(new FakeTerminal(), { columns: 0, rows: 0 });
      const display = new BarDisplay(terminal);
      display.update(step("one", "unpacking", 1, 10));
      vi.advanceTimersByTime(500);
      expect(terminal.lines).toEqual([expect.stringMatching(/^one +Unpacking .*10/), ""]);
      display.finish();
      expect(terminal.lines).toEqual([""]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("writes a plain line per change of action elsewhere", () => {
    const written: string[] = [];
    const stream = new Writable({
      write(chunk: Buffer, _encoding, done) {
        written.push(chunk.toString());
        done();
      },
    });
    const display = createProgress(stream, false, {});
    display.update(step(`sha256:${"ab".repeat(32)}`, "waiting", 0, 0));
    display.update(step(`sha256:${"ab".repeat(32)}`, "unpacking", 0, 12_300_000));
    display.update(step(`sha256:${"ab".repeat(32)}`, "unpacking", 500, 12_300_000));
    display.update(step(`sha256:${"ab".repeat(32)}`, "done", 0, 0));
    display.finish();
    expect(written.join("")).toBe("abababababab: unpacking (12.3MB)\nabababababab: done\n");
  });

  it("writes nothing when asked to be quiet", () => {
    const terminal = new FakeTerminal();
    const display = createProgress(terminal, true, {});
    display.update(step("one", "unpacking", 1, 10));
    display.finish();
    expect(terminal.lines).toEqual([""]);
  });
});
