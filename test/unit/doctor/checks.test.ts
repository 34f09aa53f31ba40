/** What the doctor's checks say of machines that lack something; of this one in test/integration. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadConfig } from "../../../src/daemon/config.js";
import { checkContainerd, differ } from "../../../src/doctor/containerd-checks.js";
import { type Finding, isHealthy } from "../../../src/doctor/finding.js";
import { describeOffer, subordinateIds } from "../../../src/doctor/mount-checks.js";
import { gunzip } from "../../../src/doctor/program-checks.js";
import { checkStore, openFiles } from "../../../src/doctor/store-checks.js";
import {
  FUSE_HAS_RESEND,
  FUSE_OVER_IO_URING,
  FUSE_PASSTHROUGH,
} from "../../../src/fuse/constants.js";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "varve-doctor-test-"));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

const surroundings = (flags: Record<string, string> = {}) => ({
  config: loadConfig({ root: join(directory, "root"), state: directory, ...flags }, {}),
  privileged: process.geteuid?.() === 0,
  etc: directory,
});
const named = (findings: readonly Finding[], name: string) =>
  findings.find((finding) => finding.name === name);

describe("the IDs of an ordinary user", () => {
  it("are those that /etc/subuid gives to its name or number; without them the command that does", () => {
    const file = join(directory, "subuid");
    expect(subordinateIds(file, "ann")).toMatchObject({ status: "note" });
    writeFileSync(file, "anna:100000:65536\n");
    const lacking = subordinateIds(file, "ann");
    expect(lacking.remedy).toMatch(/^usermod .* ann$/);
    expect(lacking.found).toContain(file);
    writeFileSync(file, "ann:100000:65536\n");
    expect(subordinateIds(file, "ann").found).toMatch(/newuidmap/);
  });
});

describe("the kernel's offer", () => {
  const offer = { major: 7, minor: 45, maxReadahead: 0, flags: 0 };

  it("of an old kernel costs passthrough and survival, with the kernel that has them as remedy", () => {
    const findings = describeOffer({ ...offer, minor: 38, flags2: 0 }, true);
    expect(named(findings, "kernel")?.status).toBe("ok");
    for (const name of ["passthrough", "restart of the daemon"]) {
      expect(named(findings, name)).toMatchObject({ status: "limited" });
      expect(named(findings, name)?.remedy).toContain("Linux 6.9");
    }
    expect(isHealthy(findings)).toBe(true);
  });

  it("of a new one is all there for root, and passthrough is not for others", () => {
    const flags2 = FUSE_PASSTHROUGH | FUSE_HAS_RESEND | FUSE_OVER_IO_URING;
    const forRoot = describeOffer({ ...offer, flags2 }, true);
    expect(forRoot.map(({ status }) => status)).toEqual(["ok", "ok", "ok", "note"]);
    const forOthers = describeOffer({ ...offer, flags2 }, false);
    expect(named(forOthers, "passthrough")?.status).toBe("limited");
  });

  it("of one before FUSE 7.31 is not enough", () => {
    expect(isHealthy(describeOffer({ ...offer, minor: 30, flags2: 0 }, true))).toBe(false);
  });
});

describe("programs", () => {
  it("that unpack more slowly are named with what they cost", () => {
    expect(gunzip({ kind: "isa-l" }).status).toBe("ok");
    expect(gunzip({ kind: "program", path: "/usr/bin/unpigz" }).cost).toContain("twice");
    expect(gunzip({ kind: "node:zlib" }).remedy).toContain("libisal2");
  });
});

describe("the store", () => {
  it("is tried where it will be made, and nothing is left there", async () => {
    const findings = await checkStore(surroundings());
    expect(named(findings, "root directory")).toMatchObject({ status: "ok" });
    expect(named(findings, "root directory")?.found).toContain("made at the first start");
  });

  it("of a file where the directory should be is no store", async () => {
    writeFileSync(join(directory, "root"), "");
    const findings = await checkStore(surroundings());
    expect(named(findings, "root directory")?.status).toBe("failed");
  });

  it("wants room for descriptors", () => {
    expect(openFiles("Max open files            1024                 4096   files").status).toBe(
      "limited",
    );
    expect(openFiles("Max open files            1024                 1048576   files").status).toBe(
      "ok",
    );
    expect(openFiles("Max open files            unlimited            unlimited files").status).toBe(
      "ok",
    );
  });
});

describe("containerd", () => {
  const configure = (text: string) => {
    mkdirSync(join(directory, "containerd"));
    writeFileSync(join(directory, "containerd/config.toml"), text);
  };
  const plugin = (address: string) =>
    `[proxy_plugins.varve]\n type = "snapshot"\n address = "${address}"\n`;
  const snapshotter = async (flags?: Record<string, string>) =>
    named(await checkContainerd(surroundings(flags)), "snapshotter");

  it("that does not know varve is a note, and a fault once the daemon is configured for it", async () => {
    configure("version = 2\n");
    expect((await snapshotter())?.status).toBe("note");
    const socket = join(directory, "c.sock");
    const found = await snapshotter({ containerdSocket: socket });
    expect(found).toMatchObject({ status: "limited" });
    expect(found?.remedy).toContain(`address "${socket}"`);
  });

  it("that looks at another socket, or at one that nobody serves, is told of", async () => {
    const socket = join(directory, "c.sock");
    configure(plugin(socket));
    expect((await snapshotter())?.found).toBe(`nobody answers at ${socket}`);
    const elsewhere = await snapshotter({ containerdSocket: "/run/other.sock" });
    expect(elsewhere?.found).toContain("the daemon is configured for /run/other.sock");
    const server = net.createServer().listen(socket);
    await new Promise((resolve) => server.once("listening", resolve));
    try {
      expect((await snapshotter())?.status).toBe("ok");
    } finally {
      server.close();
    }
  });

  it("whose configuration is no TOML is told of, with the line", async () => {
    configure("version = \n");
    const findings = await checkContainerd(surroundings());
    expect(named(findings, "configuration")?.found).toContain("config.toml: ");
  });

  it("has a differ from 1.7 on, which needs containerd's own socket", () => {
    const differs = [{ name: "varve-diff", type: "diff", address: "/run/varve/containerd.sock" }];
    expect(differ([], "1.6.20", surroundings()).status).toBe("note");
    expect(differ([], "2.1.0", surroundings()).status).toBe("limited");
    expect(differ(differs, "2.1.0", surroundings()).cost).toContain("differ fails");
    const flags = { containerdSocket: "/run/a.sock", containerdAddress: "/run/b.sock" };
    expect(differ(differs, "2.1.0", surroundings(flags)).status).toBe("ok");
  });
});
