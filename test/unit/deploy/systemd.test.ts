/** The systemd units: confined, but never so that views are hidden or layers cannot be what they are. */

import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { DEFAULT_CAPABILITIES } from "../../../src/images/bundle-defaults.js";

const directory = path.resolve(import.meta.dirname, "../../../deploy/systemd");

/** Key and value of each line; of a repeated key all values. */
function settings(name: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  const text = readFileSync(path.join(directory, name), "utf8").replaceAll("\\\n", " ");
  for (const line of text.split("\n")) {
    const [, key, value] = /^([A-Za-z]+)=(.*)$/.exec(line) ?? [];
    if (key === undefined || value === undefined) continue;
    found.set(key, [...(found.get(key) ?? []), value]);
  }
  return found;
}

const words = (unit: Map<string, string[]>, key: string) =>
  (unit.get(key) ?? []).flatMap((value) => value.replace(/^~/, "").split(/\s+/));

const units = ["varve.service", "no-builds.conf"].map((name) => [name, settings(name)] as const);
const [[, service], [, dropIn]] = units as [(typeof units)[0], (typeof units)[0]];

it.each(units)("%s leaves the daemon in the mount namespace of the machine", (_, unit) => {
  const hiding =
    /^(Protect(System|Home|Proc|Clock|Control|Kernel|Hostname)|Private|Root(Dir|Image)|Temporary|(Read(Only|Write)|Inaccessible|Exec|NoExec)Paths|Bind|Mount|DynamicUser|ProcSubset|Device)/;
  expect([...unit.keys()].filter((key) => hiding.test(key))).toEqual([]);
});

it.each(units)("%s lets layers have set-id files, and V8 compile", (_, unit) => {
  for (const key of ["RestrictSUIDSGID", "MemoryDenyWriteExecute", "User"]) {
    expect(unit.has(key)).toBe(false);
  }
});

it("the service has what the daemon and its containers need, and nothing that rules the machine", () => {
  const capabilities = words(service, "CapabilityBoundingSet");
  expect(capabilities).toEqual(expect.arrayContaining([...DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"]));
  for (const name of ["MODULE", "RAWIO", "BOOT", "TIME", "TTY_CONFIG", "PACCT"]) {
    expect(capabilities).not.toContain(`CAP_SYS_${name}`);
  }
  expect(words(service, "SystemCallFilter")).toEqual(
    expect.arrayContaining(["@clock", "@module", "@raw-io", "@reboot", "@swap"]),
  );
  expect(words(service, "RestrictAddressFamilies")).not.toContain("AF_PACKET");
});

it("without builds it keeps what mounting, unpacking and serving need", () => {
  const taken = words(dropIn, "CapabilityBoundingSet");
  for (const name of ["SYS_ADMIN", "MKNOD", "CHOWN", "SETFCAP", "FSETID", "DAC_OVERRIDE"]) {
    expect(taken).not.toContain(`CAP_${name}`);
  }
  // Guests' files are opened as them.
  expect(taken).not.toContain("CAP_SETUID");
  expect(taken).not.toContain("CAP_SETGID");
  expect(dropIn.get("NoNewPrivileges")).toEqual(["yes"]);
});
