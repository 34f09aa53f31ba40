/** hosts.toml and certificate directories. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hostsOf } from "../../../src/registry/hosts.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-hosts-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

function write(name: string, text: string): void {
  const file = path.join(directory, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
}

const hosts = (domain: string, more: object = {}) =>
  hostsOf(
    { domain, path: "team/app" },
    {
      environment: { VARVE_HOSTS_DIR: directory, CONTAINERS_REGISTRIES_CONF: "/dev/null" },
      ...more,
    },
  );

describe("a registry without configuration", () => {
  it("is reached by https at its own name, the Hub at its registry's", () => {
    expect(hosts("r.example:5000")).toMatchObject([
      { api: "https://r.example:5000/v2", schemeIsOpen: false },
    ]);
    expect(hosts("docker.io")[0]!.api).toBe("https://registry-1.docker.io/v2");
  });

  it("may speak plain http on this machine, or when certificates do not count", () => {
    expect(hosts("localhost:5000")[0]!.schemeIsOpen).toBe(true);
    expect(hosts("127.0.0.1:5000")[0]!.schemeIsOpen).toBe(true);
    expect(hosts("127.example:5000")[0]!.schemeIsOpen).toBe(false);
    expect(hosts("r.example", { skipTlsVerify: true })[0]).toMatchObject({
      schemeIsOpen: true,
      tls: { skipVerify: true },
    });
    expect(hosts("r.example", { plainHttp: true })[0]).toMatchObject({
      api: "http://r.example/v2",
      schemeIsOpen: false,
    });
  });

  it("has the certificates of docker's directories", () => {
    write("r.example:5000/ca.crt", "CA");
    write("r.example:5000/client.cert", "CERT");
    write("r.example:5000/client.key", "KEY");
    expect(hosts("r.example:5000")[0]!.tls).toEqual({
      ca: ["CA"],
      clients: [{ cert: "CERT", key: "KEY" }],
      skipVerify: false,
    });
  });
});

describe("hosts.toml", () => {
  it("puts mirrors first, with everything that they can be told", () => {
    write("ca.pem", "CA");
    write("pair.pem", "PAIR");
    write(
      "r.example/hosts.toml",
      `server = "https://r.example"
       ca = "../ca.pem"
       [host."https://mirror.example"]
         capabilities = ["pull"]
         skip_verify = true
         dial_timeout = "1m1.5s"
         client = [["../pair.pem", ""]]
         [host."https://mirror.example".header]
           x-team = ["a", "b"]
       [host."http://other.example:81/cache/r"]
         override_path = true`,
    );
    const [mirror, other, server] = hosts("r.example");
    expect(mirror).toMatchObject({
      api: "https://mirror.example/v2",
      domain: "mirror.example",
      namespace: "r.example",
      dialTimeoutMs: 61_500,
      headers: { "x-team": ["a", "b"] },
      tls: { skipVerify: true, clients: [{ cert: "PAIR", key: "PAIR" }] },
    });
    expect([...mirror!.capabilities]).toEqual(["pull"]);
    expect(other!.api).toBe("http://other.example:81/cache/r");
    expect(server).toMatchObject({ api: "https://r.example/v2", tls: { ca: ["CA"] } });
    expect(server!.namespace).toBeUndefined();
  });

  it("is found under containerd's other spelling of a port, and for all registries", () => {
    write("r.example_5000_/hosts.toml", '[host."https://a.example"]');
    write("_default/hosts.toml", '[host."https://b.example"]');
    expect(hosts("r.example:5000").map((one) => one.api)).toEqual([
      "https://a.example/v2",
      "https://r.example:5000/v2",
    ]);
    expect(hosts("x.example")[0]!.api).toBe("https://b.example/v2");
  });

  it.each([
    ["what is no TOML", "server = "],
    ["an unknown capability", 'capabilities = ["read"]'],
    ["an address that is none", '[host."ftp://x"]'],
    ["a CA that is not there", 'ca = "none.pem"'],
    ["a time without a unit", 'dial_timeout = "10"'],
  ])("with %s is an error that names the file", (_, text) => {
    write("r.example/hosts.toml", text);
    expect(() => hosts("r.example")).toThrow(/hosts\.toml/);
  });
});
