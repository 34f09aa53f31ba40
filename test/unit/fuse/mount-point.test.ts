import { expect, test } from "vitest";
import { searchMounts } from "../../../src/fuse/mount-point.js";
import { toBytes } from "../../../src/system/bytes.js";

const MOUNTINFO = `\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:39 / /mnt/a\\040b rw shared:2 master:1 - fuse.varve varve:x rw,user_id=0
41 27 0:40 / /mnt/plain rw - tmpfs tmpfs rw
42 41 0:41 / /mnt/plain rw - fuse.varve varve:y rw
43 27 0:42 / /mnt/\u00c3\u00a4\\134 rw - tmpfs tmpfs rw
`;

test("mount points are found by their exact, unescaped path, whatever optional fields they have", () => {
  const find = (target: string) => searchMounts(MOUNTINFO, toBytes(target));
  expect(find("/mnt/a b")).toMatchObject({ device: "0:39", source: "varve:x" });
  expect(find("/")).toMatchObject({ device: "254:0", type: "ext4" });
  expect(find("/mnt/\u00e4\\")).toEqual({ device: "0:42", type: "tmpfs", source: "tmpfs" });
  expect(find("/mnt")).toBeUndefined();
  expect(find("/mnt/plain/")).toBeUndefined();
});

test("of several mounts on one path the topmost counts", () => {
  expect(searchMounts(MOUNTINFO, toBytes("/mnt/plain"))?.device).toBe("0:41");
});
