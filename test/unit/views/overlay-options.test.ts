import { describe, expect, it } from "vitest";
import { MS_NODEV, MS_NOSUID } from "../../../src/system/constants.js";
import { idTranslation } from "../../../src/views/id-translation.js";
import { parseOverlayArguments } from "../../../src/views/overlay-options.js";

const LOWER = "lowerdir=a";

describe("the command line of varve overlay", () => {
  it("is read as fuse-overlayfs reads it", () => {
    const line = ["-o", "lowerdir=a:b\\:c,upperdir=u\\,v,workdir=w", "-onodev,nosuid", "mnt"];
    expect(parseOverlayArguments(line)).toMatchObject({
      target: "mnt",
      source: "varve",
      lowerDirs: ["a", "b:c"],
      upperDir: "u,v",
      workDir: "w",
      readOnly: false,
      mountFlags: MS_NODEV | MS_NOSUID,
      metacopy: false,
      redirectDirectories: true,
      io: "auto",
    });
  });

  it("is read as mount(8) gives it to a helper", () => {
    const line = ["src", "mnt", "-n", "-s", "-t", "fuse.varve", "-o", `rw,${LOWER},suid,nodev,dev`];
    expect(parseOverlayArguments(line)).toMatchObject({
      source: "src",
      target: "mnt",
      readOnly: true,
      mountFlags: 0,
    });
  });

  it("passes over what fuse-overlayfs needs and varve does not", () => {
    const options =
      "threaded=1,clone_fd,timeout=60,fast_ino=1,xino=off,allow_other,,x-systemd.automount";
    expect(parseOverlayArguments(["-o", `${options},${LOWER}`, "m"]).target).toBe("m");
  });

  it("reads volatile and fsync=0 alike", () => {
    for (const option of ["volatile", "fsync=0", "sync=0"])
      expect(parseOverlayArguments(["-o", `${LOWER},${option}`, "m"]).fsync).toBe(false);
  });

  it.each([
    ["no target", ["-o", LOWER], "INVALID_ARGUMENT"],
    ["three operands", ["-o", LOWER, "a", "b", "c"], "INVALID_ARGUMENT"],
    ["an unknown option", ["-o", `${LOWER},shiny`, "m"], "INVALID_ARGUMENT"],
    ["an unknown argument", ["--shiny", "m"], "INVALID_ARGUMENT"],
    ["a bad mapping", ["-o", `${LOWER},uidmapping=0:1`, "m"], "INVALID_ARGUMENT"],
    ["a bad owner", ["-o", `${LOWER},squash_to_uid=-1`, "m"], "INVALID_ARGUMENT"],
    ["a plugin", ["-o", "lowerdir=//zip//data//x", "m"], "UNSUPPORTED"],
    ["owners in attributes", ["-o", `${LOWER},xattr_permissions=2`, "m"], "UNSUPPORTED"],
  ])("refuses %s", (_what, line, code) => {
    expect(() => parseOverlayArguments(line)).toThrow(expect.objectContaining({ code }));
  });
});

describe("owners", () => {
  const ranges = [
    { disk: 0, shown: 1000, size: 1 },
    { disk: 1, shown: 110_000, size: 65_536 },
  ];

  it("are mapped there and back, run by run", () => {
    const ids = idTranslation({ ranges });
    expect([0, 1, 65_536].map(ids.toShown)).toEqual([1000, 110_000, 175_535]);
    expect([1000, 110_000, 175_535].map(ids.toDisk)).toEqual([0, 1, 65_536]);
  });

  it("outside every run are nobody, and cannot be written", () => {
    const ids = idTranslation({ ranges });
    expect(ids.toShown(70_000)).toBe(65_534);
    expect(ids.toDisk(0)).toBe(-1);
  });

  it("are one and the same when squashed", () => {
    expect(idTranslation({ ranges: [], squashTo: 7 }).toShown(12)).toBe(7);
  });
});
