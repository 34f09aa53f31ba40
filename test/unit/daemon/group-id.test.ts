import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { groupId } from "../../../src/daemon/group-id.js";

let directory: string;
let file: string;

beforeAll(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-group-"));
  file = path.join(directory, "group");
  writeFileSync(file, "root:x:0:\nbroken\nvarve:x:997:ann,bob\nno-number:x:y:\n");
});

afterAll(() => rmSync(directory, { recursive: true }));

describe("groupId", () => {
  it("takes a name of /etc/group, or a number", () => {
    expect(groupId("varve", file)).toBe(997);
    expect(groupId("12345", file)).toBe(12345);
  });

  it.each(["nobody-knows-it", "no-number", "broken", "4294967295", ""])("refuses %j", (name) => {
    expect(() => groupId(name, file)).toThrowError(
      expect.objectContaining({ code: "NOT_FOUND" }) as Error,
    );
  });
});
