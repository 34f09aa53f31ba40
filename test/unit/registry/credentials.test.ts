/** Credentials as docker and podman keep them. */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  eraseCredentials,
  findCredentials,
  saveCredentials,
} from "../../../src/registry/credentials.js";

let home: string;
beforeEach(() => {
  home = mkdtempSync(path.join(os.tmpdir(), "varve-credentials-"));
});
afterEach(() => rmSync(home, { recursive: true }));

const auth = (user: string) => ({ auth: Buffer.from(`${user}:pass:word`).toString("base64") });
const environment = (more: Record<string, string> = {}) => ({
  HOME: home,
  XDG_RUNTIME_DIR: path.join(home, "run"),
  PATH: `${home}:${process.env.PATH}`,
  ...more,
});

function write(file: string, content: object): string {
  const target = path.join(home, file);
  mkdirSync(path.dirname(target), { recursive: true });
  writeFileSync(target, JSON.stringify(content));
  return target;
}

function writeHelper(name: string, script: string): void {
  writeFileSync(path.join(home, `docker-credential-${name}`), `#!/bin/sh\n${script}\n`, {
    mode: 0o755,
  });
}

it("nothing is looked up in files for a caller who may name none", async () => {
  const repository = { domain: "reg.example", path: "team/app" };
  write(".docker/config.json", { auths: { "reg.example": auth("of-the-file") } });
  const access = { environment: environment() };
  expect(await findCredentials(repository, access)).toMatchObject({ username: "of-the-file" });
  expect(await findCredentials(repository, { ...access, isWithoutFiles: true })).toBeUndefined();
  const credentials = { username: "own", password: "p" };
  const own = { ...access, credentials, isWithoutFiles: true };
  expect(await findCredentials(repository, own)).toEqual(credentials);
});

const find = (domain: string, repository = "team/app", more: Record<string, string> = {}) =>
  findCredentials({ domain, path: repository }, { environment: environment(more) });

describe("credentials", () => {
  it("are found by the most specific key, and a password may hold a colon", async () => {
    write("run/containers/auth.json", {
      auths: { "r.example": auth("all"), "r.example/team": auth("team"), "r.example/t": auth("t") },
    });
    expect(await find("r.example")).toEqual({ username: "team", password: "pass:word" });
    expect(await find("r.example", "other/app")).toEqual({
      username: "all",
      password: "pass:word",
    });
    expect(await find("x.example")).toBeUndefined();
  });

  it("of the Hub have its old address, and others may have an address, too", async () => {
    write(".docker/config.json", {
      auths: { "https://index.docker.io/v1/": auth("hub"), "https://r.example/v2/": auth("r") },
    });
    expect(await find("docker.io", "library/box")).toMatchObject({ username: "hub" });
    expect(await find("r.example")).toMatchObject({ username: "r" });
  });

  it("are looked for in podman's file, then docker's; a file that is named goes alone", async () => {
    write(".docker/config.json", {
      auths: { "a.example": auth("docker"), "b.example": auth("b") },
    });
    write(".config/containers/auth.json", { auths: { "a.example": auth("podman") } });
    const named = write("named.json", { auths: { "a.example": { identitytoken: "token" } } });
    const docker = path.dirname(write("d/config.json", { auths: { "a.example": auth("d") } }));
    expect(await find("a.example")).toMatchObject({ username: "podman" });
    expect(await find("b.example")).toMatchObject({ username: "b" });
    const only = { REGISTRY_AUTH_FILE: named };
    expect(await find("a.example", "x", only)).toEqual({ identityToken: "token" });
    expect(await find("b.example", "x", only)).toBeUndefined();
    expect(await find("a.example", "x", { DOCKER_CONFIG: docker })).toMatchObject({
      username: "d",
    });
  });

  it("come from helpers, for one registry or for all", async () => {
    writeHelper(
      "all",
      'read s; [ "$s" = none.example ] && { echo "credentials not found in native keychain"; exit 1; }\n' +
        'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"for $s\\"}"',
    );
    writeHelper("one", 'echo \'{"Username":"u","Secret":"s"}\'');
    writeHelper("broken", "echo locked; exit 3");
    write(".docker/config.json", {
      credsStore: "all",
      credHelpers: { "one.example": "one", "bad.example": "broken", "evil.example": "../x" },
      auths: { "none.example": auth("plain") },
    });
    expect(await find("r.example")).toEqual({ identityToken: "for r.example" });
    expect(await find("docker.io")).toEqual({ identityToken: "for https://index.docker.io/v1/" });
    expect(await find("one.example")).toEqual({ username: "u", password: "s" });
    expect(await find("none.example")).toMatchObject({ username: "plain" });
    await expect(find("bad.example")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await expect(find("evil.example")).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  it("are kept beside what is in the file, given to a helper where there is one, and erased", async () => {
    const file = write(".docker/config.json", { proxies: {}, credHelpers: { "h.example": "h" } });
    writeHelper(
      "h",
      `cat > ${home}/stored-$1; [ $1 = get ] && echo '{"Username":"u","Secret":"s"}'; exit 0`,
    );
    const secret = { username: "me", password: "it" };
    expect(await saveCredentials("r.example", secret, environment())).toBe(file);
    expect(await find("r.example")).toEqual(secret);
    expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({ proxies: {} });
    expect(await saveCredentials("h.example", secret, environment())).toBe("docker-credential-h");
    expect(JSON.parse(readFileSync(path.join(home, "stored-store"), "utf8"))).toEqual({
      ServerURL: "h.example",
      Username: "me",
      Secret: "it",
    });
    expect(await eraseCredentials("h.example", environment())).toEqual(["docker-credential-h"]);
    expect(await eraseCredentials("r.example", environment())).toEqual([file]);
    expect(await find("r.example")).toBeUndefined();
  });

  it("in a damaged file are an error that does not show the file", async () => {
    write(".docker/config.json", {});
    writeFileSync(path.join(home, ".docker/config.json"), '{"auths": secret');
    const error = await find("r.example").catch((one: Error & { code: string }) => one);
    expect(error).toMatchObject({ code: "CORRUPT_DATA" });
    expect((error as Error).message).not.toMatch(/secret/);
  });
});
