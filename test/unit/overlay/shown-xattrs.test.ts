import { describe, expect, it } from "vitest";
import { translateAcl, translateCapabilities } from "../../../src/overlay/shown-xattrs.js";
import { EINVAL } from "../../../src/system/errno.js";

const up = { uid: (id: number) => id + 1000, gid: (id: number) => id + 2000 };
const down = {
  uid: (id: number) => (id >= 1000 ? id - 1000 : -1),
  gid: (id: number) => (id >= 2000 ? id - 2000 : -1),
};

/** user::rwx user:7:rw- group::r-x group:8:r-- mask::rwx other::--- */
const acl = Buffer.from(
  "02000000" +
    ["01000700ffffffff", "0200060007000000", "04000500ffffffff", "0800040008000000"].join("") +
    "10000700ffffffff20000000ffffffff",
  "hex",
);

describe("translateAcl", () => {
  it("changes the named users and groups, and nothing else, there and back", () => {
    const shown = translateAcl(acl, up) as Buffer;
    expect(shown.readUInt32LE(4 + 8 + 4)).toBe(1007);
    expect(shown.readUInt32LE(4 + 24 + 4)).toBe(2008);
    expect(shown.readUInt32LE(4 + 4)).toBe(0xffffffff);
    expect(translateAcl(shown, down)).toEqual(acl);
  });

  it("refuses an ID that is nobody's on the other side", () => {
    expect(translateAcl(acl, down)).toBe(-EINVAL);
  });

  it("leaves what is no ACL as it is", () => {
    for (const bytes of ["", "02", "0200000001"]) {
      const value = Buffer.from(bytes, "hex");
      expect(translateAcl(value, down)).toEqual(value);
    }
  });
});

describe("translateCapabilities", () => {
  const v2 = Buffer.from("0100000200040000000000000000000000000000", "hex");

  it("what the image's root gives counts for whom root is shown as, there and back", () => {
    const shown = translateCapabilities(v2, up) as Buffer;
    expect(shown.toString("hex")).toBe("0100000300040000000000000000000000000000e8030000");
    expect(translateCapabilities(shown, down)).toEqual(v2);
  });

  it("of another namespace's root stay that one's", () => {
    const v3 = Buffer.from("0100000300040000000000000000000000000000d0070000", "hex");
    const onDisk = translateCapabilities(v3, down) as Buffer;
    expect(onDisk.readUInt32LE(20)).toBe(1000);
    expect(translateCapabilities(onDisk, up)).toEqual(v3);
  });

  it("nobody's are refused, and what has another form is left", () => {
    expect(translateCapabilities(v2, down)).toBe(-EINVAL);
    for (const value of [Buffer.alloc(0), Buffer.alloc(20), v2.subarray(0, 12)]) {
      expect(translateCapabilities(value, up)).toEqual(value);
    }
  });
});
