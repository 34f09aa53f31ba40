import { describe, expect, it } from "vitest";
import { decodeOwner, encodeOwner } from "../../../src/layers/rootless-owner.js";

describe("the attribute of an owner", () => {
  it.each([
    { uid: 0, gid: 0, hex: "" },
    { uid: 33, gid: 0, hex: "0821" },
    { uid: 0, gid: 42, hex: "102a" },
    { uid: 1000, gid: 65534, hex: "08e80710feff03" },
    { uid: 2 ** 32 - 1, gid: 128, hex: "08ffffffff0f108001" },
  ])("says $uid:$gid as protobuf does, there and back", ({ uid, gid, hex }) => {
    expect(encodeOwner({ uid, gid }).toString("hex")).toBe(hex);
    expect(decodeOwner(Buffer.from(hex, "hex"))).toEqual({ uid, gid });
  });

  it.each(["08", "0880", "1801", "41", "08ffffffffff0f", "74657874"])("is not %s", (hex) => {
    expect(decodeOwner(Buffer.from(hex, "hex"))).toBeUndefined();
  });
});
