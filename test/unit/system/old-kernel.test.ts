import { expect, it } from "vitest";

// Before the addon loads, which each test file does in a process of its own.
process.env.VARVE_OLD_KERNEL = "1";

const { describeModes } = await import("./mode-suite.js");
const { describeXattrs } = await import("./xattr-suite.js");
const { sys } = await import("../../../src/system/addon.js");
const { ENAMETOOLONG } = await import("../../../src/system/errno.js");
const { bytes, makeScratch } = await import("./scratch.js");

describeXattrs("an old kernel");
describeModes("an old kernel");

it("VARVE_OLD_KERNEL takes the way through /proc, whose prefix shortens the longest path", () => {
  const { fd } = makeScratch();
  const path = bytes(`${"./".repeat(2040)}f`);
  expect(sys.getxattrat(fd, path, bytes("user.x"))).toBe(-ENAMETOOLONG);
});
