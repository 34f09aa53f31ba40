import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { resolveSocket } from "../../../src/client/endpoint.js";
import { loadConfig } from "../../../src/daemon/config.js";
import { BaseError } from "../../../src/system/errors.js";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-config-"));
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

function configFile(text: string): string {
  const file = path.join(directory, "config.toml");
  writeFileSync(file, text);
  return file;
}

function failureOf(action: () => unknown): BaseError {
  try {
    action();
  } catch (error) {
    if (error instanceof BaseError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("loadConfig", () => {
  it("lets a flag win over a variable, a variable over the file, the file over the default", () => {
    const config = configFile('root = "/file/root"\nstate = "/file/state"\nlog_level = "debug"\n');
    const environment = {
      VARVE_CONFIG: config,
      VARVE_STATE: "/env/state",
      VARVE_ROOT: "/env/root",
    };
    const loaded = loadConfig({ root: "/flag/root" }, environment);
    expect(loaded).toMatchObject({
      root: "/flag/root",
      state: "/env/state",
      logLevel: "debug",
      keepMounts: false,
      restoreViews: true,
    });
  });

  it("puts the socket into the state directory unless told otherwise", () => {
    expect(loadConfig({ state: "/s" }, {}).socket).toBe("/s/varve.sock");
    expect(loadConfig({ state: "/s", socket: "/x.sock" }, {}).socket).toBe("/x.sock");
  });

  it("serves a kubelet only when it is given a socket, whose path is made absolute", () => {
    expect(loadConfig({}, {}).criSocket).toBeUndefined();
    expect(loadConfig({}, { VARVE_CRI_SOCKET: "/run/cri.sock" }).criSocket).toBe("/run/cri.sock");
    expect(loadConfig({ healthAddress: "[::]:7878" }, {}).healthAddress).toBe("[::]:7878");
    expect(failureOf(() => loadConfig({ healthAddress: "7878" }, {})).message).toMatch(/HOST:PORT/);
    expect(loadConfig({ criSocket: "cri.sock" }, {}).criSocket).toBe(path.resolve("cri.sock"));
  });

  it("serves a containerd only when it is given a socket, with FUSE mounts unless told otherwise", () => {
    expect(loadConfig({}, {})).toMatchObject({
      containerdSocket: undefined,
      containerdMounts: "fuse",
    });
    const file = configFile('containerd_socket = "/run/c.sock"\ncontainerd_mounts = "overlay"\n');
    expect(loadConfig({ config: file }, {})).toMatchObject({
      containerdSocket: "/run/c.sock",
      containerdMounts: "overlay",
    });
    const bad = failureOf(() => loadConfig({ containerdMounts: "ext4" }, {}));
    expect(bad.message).toContain("fuse, overlay");
  });

  it("makes relative paths absolute", () => {
    expect(loadConfig({ root: "r" }, {}).root).toBe(path.resolve("r"));
  });

  it("reads booleans and counts from variables", () => {
    const environment = {
      VARVE_KEEP_MOUNTS: "yes",
      VARVE_RESTORE_VIEWS: "0",
      VARVE_FUSE_WORKERS: "3",
      VARVE_QUICK_WAKE_UPS: "off",
      VARVE_IO: "passthrough",
      VARVE_MAX_LAYER_RATIO: "20000",
    };
    expect(loadConfig({}, environment)).toMatchObject({
      keepMounts: true,
      restoreViews: false,
      fuseWorkers: 3,
      quickWakeUps: false,
      io: "passthrough",
      maxLayerGib: undefined,
      maxLayerRatio: 20_000,
    });
  });

  it("treats an empty variable as unset", () => {
    expect(loadConfig({ state: "/s" }, { VARVE_SOCKET: "", VARVE_LOG_LEVEL: "" })).toMatchObject({
      socket: "/s/varve.sock",
      logLevel: "info",
    });
  });

  it("names an unknown key and the nearest known one", () => {
    const error = failureOf(() => loadConfig({ config: configFile("keep_mount = true\n") }, {}));
    expect(error.code).toBe("INVALID_ARGUMENT");
    expect(error.message).toContain('"keep_mount"');
    expect(error.message).toContain('"keep_mounts"');
  });

  it("lists the known keys for a key that is like none", () => {
    const error = failureOf(() => loadConfig({ config: configFile("zzzzzzzzzzzzzzzz = 1\n") }, {}));
    expect(error.message).toContain("unpack_workers");
  });

  it.each([
    ["a value of the wrong type", 'fuse_workers = "two"\n', "fuse_workers"],
    ["a count of zero", "unpack_workers = 0\n", "unpack_workers"],
    ["a limit of nothing", "max_layer_gib = 0\n", "max_layer_gib"],
    ["an unknown I/O mode", 'io = "fast"\n', "cached, passthrough, auto"],
    ["an unknown log level", 'log_level = "loud"\n', "trace, debug, info"],
    ["broken TOML", "root = \n", "line 1"],
  ])("refuses %s and says where", (_, text, expected) => {
    const error = failureOf(() => loadConfig({ config: configFile(text) }, {}));
    expect(error.code).toBe("INVALID_ARGUMENT");
    expect(error.message).toContain(expected);
    expect(error.message).toContain(directory);
  });

  it("takes the collector's thresholds from a table, from variables and from flags", () => {
    const file = configFile("[gc]\nhigh = 90\nlow = 70\n");
    expect(loadConfig({ config: file }, {})).toMatchObject({ gcHigh: 90, gcLow: 70 });
    const environment = { VARVE_GC_HIGH: "80" };
    expect(loadConfig({ config: file }, environment)).toMatchObject({ gcHigh: 80, gcLow: 70 });
    expect(loadConfig({ gcHigh: 60 }, environment)).toMatchObject({ gcHigh: 60 });
    expect(loadConfig({}, {})).toMatchObject({ gcHigh: undefined, gcLow: undefined });
    const crossed = failureOf(() => loadConfig({ config: file, gcHigh: 60 }, {}));
    expect(crossed).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(crossed.message).toContain("gc.low = 70");
    expect(loadConfig({ config: configFile("gc.high = 50\n") }, {})).toMatchObject({ gcHigh: 50 });
    for (const text of ["gc.high = 100\n", "gc.hig = 3\n", "gc = 3\n", "[gc.high]\n"]) {
      const error = failureOf(() => loadConfig({ config: configFile(text) }, {}));
      expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
    }
  });

  it("names the variable of a bad value", () => {
    const error = failureOf(() => loadConfig({}, { VARVE_FUSE_WORKERS: "many" }));
    expect(error.message).toContain("VARVE_FUSE_WORKERS");
  });

  it("misses a file only when it was named", () => {
    const missing = path.join(directory, "none.toml");
    expect(failureOf(() => loadConfig({ config: missing }, {})).code).toBe("NOT_FOUND");
    expect(loadConfig({}, { HOME: directory }).logLevel).toBe("info");
  });
});

describe("resolveSocket", () => {
  it("agrees with the daemon's own configuration", async () => {
    const config = configFile('state = "/from/file"\n');
    const cases = [
      [{}, { VARVE_CONFIG: config }],
      [{ state: "/flag" }, { VARVE_CONFIG: config }],
      [{ config }, { VARVE_STATE: "/env" }],
      [{ state: "/flag" }, {}],
      [{}, { VARVE_SOCKET: "/env.sock" }],
      [{ socket: "rel.sock" }, { VARVE_SOCKET: "/env.sock" }],
    ] as const;
    for (const [flags, environment] of cases) {
      expect(await resolveSocket(flags, environment)).toBe(loadConfig(flags, environment).socket);
    }
  });
});

describe("the configuration file of the Debian package", () => {
  const text = readFileSync(
    path.join(import.meta.dirname, "../../../deploy/debian/config.toml"),
    "utf8",
  );

  it("names every setting, each with a value that is accepted", () => {
    const plain = text.replaceAll(/^#(?=[a-z[])/gm, "");
    expect(() => loadConfig({ config: configFile(plain) }, {})).not.toThrow();
    const unknown = failureOf(() => loadConfig({ config: configFile("zzzzzzzzzzzz = 1") }, {}));
    const known = /known keys: (.*)$/.exec(unknown.message)?.[1]?.split(", ") ?? [];
    expect(known.length).toBeGreaterThan(15);
    for (const key of known) {
      const line = key.startsWith("gc.") ? `#${key.slice(3)} = ` : `#${key} = `;
      expect(text).toContain(`\n${line}`);
    }
  });

  it("changes nothing as it is", () => {
    expect(loadConfig({ config: configFile(text) }, {})).toEqual(
      loadConfig({}, { HOME: directory, XDG_CONFIG_HOME: directory }),
    );
  });
});
