/** registries.conf: where a repository really is, and what short names mean. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { RegistryAccess } from "../../../src/registry/access.js";
import { hostsOf } from "../../../src/registry/hosts.js";
import { shortNames } from "../../../src/registry/registries-conf.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-registries-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

function write(name: string, text: string): string {
  const file = path.join(directory, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

const accessWith = (file: string, more: Partial<RegistryAccess> = {}): RegistryAccess => ({
  environment: { VARVE_HOSTS_DIR: directory, CONTAINERS_REGISTRIES_CONF: file },
  ...more,
});

/** "https://host/v2 path capabilities" of each host. */
function hosts(file: string, name: string, isByDigest = false): string[] {
  const [domain = "", ...parts] = name.split("/");
  return hostsOf({ domain, path: parts.join("/") }, accessWith(file), isByDigest).map((host) =>
    [host.api, host.path, [...host.capabilities].join("+")].join(" "),
  );
}

const ALL = "pull+resolve+push";

describe("registries.conf", () => {
  it("puts mirrors before the registry, each with its own names", () => {
    const file = write(
      "r.conf",
      `[[registry]]
       prefix = "r.example/team"
       location = "r.example/team"
       [[registry.mirror]]
       location = "near.example:5000/cache"
       [[registry.mirror]]
       location = "digests.example"
       pull-from-mirror = "digest-only"
       [[registry.mirror]]
       location = "tags.example"
       pull-from-mirror = "tag-only"
       insecure = true`,
    );
    expect(hosts(file, "r.example/team/app")).toEqual([
      "https://near.example:5000/v2 cache/app pull+resolve",
      "https://digests.example/v2 app pull",
      "https://tags.example/v2 app pull+resolve",
      `https://r.example/v2 team/app ${ALL}`,
    ]);
    expect(hosts(file, "r.example/team/app", true)).toHaveLength(3);
    // Neither the end of a name's part nor another registry.
    expect(hosts(file, "r.example/teams/app")).toEqual([`https://r.example/v2 teams/app ${ALL}`]);
  });

  it("may say that a registry is elsewhere; what is pushed goes where its name says", () => {
    const file = write(
      "r.conf",
      `[[registry]]
       prefix = "docker.io"
       location = "hub.example/copy"
       [[registry]]
       prefix = "*.old.example"
       location = "new.example"`,
    );
    expect(hosts(file, "docker.io/library/busybox")).toEqual([
      "https://hub.example/v2 copy/library/busybox pull+resolve",
      "https://registry-1.docker.io/v2 library/busybox push",
    ]);
    expect(hosts(file, "a.old.example/app")[0]).toBe("https://new.example/v2 app pull+resolve");
    // A login is for the registry that is named.
    expect(hosts(file, "docker.io")).toEqual([`https://registry-1.docker.io/v2  ${ALL}`]);
  });

  it("takes the longest prefix, and the later file's table of the same prefix", () => {
    const home = path.join(directory, "home");
    write(
      "home/.config/containers/registries.conf",
      `[[registry]]
       location = "r.example"
       blocked = true
       [[registry]]
       location = "r.example/free"`,
    );
    const access = { environment: { VARVE_HOSTS_DIR: directory, HOME: home } };
    const ask = (name: string) => hostsOf({ domain: "r.example", path: name }, access);
    expect(() => ask("app")).toThrow(/registries\.conf blocks app/);
    expect(ask("free/app")).toHaveLength(1);
    write(
      "home/.config/containers/registries.conf.d/10.conf",
      '[[registry]]\nlocation = "r.example"\ninsecure = true',
    );
    expect(ask("app")[0]).toMatchObject({ schemeIsOpen: true, tls: { skipVerify: true } });
  });

  it("does not give a mirror the credentials of the command line", () => {
    const file = write(
      "r.conf",
      '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m.example"',
    );
    const found = hostsOf({ domain: "r.example", path: "app" }, accessWith(file));
    expect(found.map((host) => host.isMirror)).toEqual([true, false]);
  });

  it("goes behind a hosts.toml", () => {
    const file = write("r.conf", '[[registry]]\nlocation = "r.example"\nblocked = true');
    write("r.example/hosts.toml", '[host."https://m.example"]');
    expect(hosts(file, "r.example/app")).toHaveLength(2);
  });

  it.each([
    ["what is no TOML", "[[registry"],
    ["a registry without a name", "[[registry]]\nblocked = true"],
    [
      "a mirror for something unknown",
      '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "some"',
    ],
  ])("with %s is an error that names the file", (_, text) => {
    const file = write("r.conf", text);
    expect(() => hosts(file, "r.example/app")).toThrow(/r\.conf: /);
  });
});

describe("short names", () => {
  it("come from all files together, and an empty alias takes one back", () => {
    const home = path.join(directory, "home");
    write(
      "home/.config/containers/registries.conf",
      'unqualified-search-registries = ["a.example", "b.example"]\nshort-name-mode = "permissive"',
    );
    write(
      "home/.config/containers/registries.conf.d/1.conf",
      '[aliases]\nalpine = "m.example/alpine"\ngone = "x.example/gone"',
    );
    write("home/.config/containers/registries.conf.d/2.conf", '[aliases]\ngone = ""');
    const found = shortNames({ HOME: home });
    expect(found.search).toEqual(["a.example", "b.example"]);
    expect(found.isStrict).toBe(false);
    expect(found.aliases.get("alpine")).toBe("m.example/alpine");
    expect(found.aliases.has("gone")).toBe(false);
  });
});
