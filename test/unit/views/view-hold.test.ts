import { closeSync, openSync } from "node:fs";
import { expect, it } from "vitest";
import type { ViewRow } from "../../../src/metadata/view-table.js";
import { ViewHold } from "../../../src/views/view-hold.js";

const view = { name: "box" } as ViewRow;
const waiting = new Int32Array(new SharedArrayBuffer(4));

it("a hold ends once, however often it is released, and closes what it was given", async () => {
  const fd = openSync("/dev/null", "r");
  let ended = 0;
  const hold = new ViewHold(view, { waiting, unheld: [fd] }, async () => {
    ended++;
    return true;
  });
  await Promise.all([hold.release(), hold.release()]);
  await hold.release();
  expect(ended).toBe(1);
  expect(() => closeSync(fd)).toThrow("EBADF");
});

it("a hold that had ended before is no moment of the view", async () => {
  const hold = new ViewHold(view, { waiting, unheld: [] }, async () => false);
  await expect(hold.release()).rejects.toMatchObject({
    code: "UNAVAILABLE",
    message: expect.stringContaining("box"),
  });
});
