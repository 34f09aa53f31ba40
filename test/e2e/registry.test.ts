/** Images from and to real registries, by the command line alone. */

import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FakeRegistry, OCI_MANIFEST } from "../integration/registry/fake-registry.js";
import { makeCertificate, RegistryProcess } from "../integration/registry/registry-process.js";
import { attempt, makeImage, PROJECT, run, Sandbox } from "./sandbox.js";

const sandbox = new Sandbox("registry");
const config = sandbox.makeDirectory("docker-config");
const hosts = sandbox.makeDirectory("hosts");
// Nothing of the machine's own configuration, and no way out of it.
const env = {
  ...sandbox.env,
  HOME: sandbox.makeDirectory("home"),
  XDG_RUNTIME_DIR: sandbox.makeDirectory("runtime"),
  DOCKER_CONFIG: config,
  VARVE_HOSTS_DIR: hosts,
  CONTAINERS_REGISTRIES_CONF: "/dev/null",
};
let plain: RegistryProcess;
let secure: RegistryProcess;

const tryVarve = (...args: string[]) => attempt(join(PROJECT, "bin/varve"), args, { env });
const varve = (...args: string[]) => run(join(PROJECT, "bin/varve"), args, { env }).trimEnd();

beforeAll(async () => {
  [plain, secure] = await Promise.all([
    RegistryProcess.start(),
    RegistryProcess.start({ tls: true, basic: true }),
  ]);
  varve("load", "-i", makeImage("busybox", sandbox.path("busybox.tar")));
});

afterAll(async () => {
  sandbox.dispose();
  await plain?.dispose();
  await secure?.dispose();
});

describe("a registry on this machine", () => {
  it("takes an image and gives it back, ready to mount", () => {
    const name = `${plain.domain}/team/box:1`;
    varve("tag", "busybox", name);
    const pushed = varve("push", name);
    const digest = /^1: digest: (sha256:[0-9a-f]{64}) size: \d+$/.exec(pushed)?.[1];
    expect(digest, pushed).toBeDefined();
    varve("rmi", name, "busybox");
    expect(varve("images", "-q")).toBe("");
    const pulled = varve("pull", name).split("\n");
    expect(pulled).toEqual([
      `Digest: ${digest}`,
      `Status: Downloaded newer image for ${name}`,
      name,
    ]);
    expect(varve("inspect", "--format", "{{.Unpacked}}", name)).toBe("true");
    const target = varve("mount", name, "--name", "pulled");
    expect(statSync(join(target, "bin/busybox")).size).toBeGreaterThan(100_000);
    varve("umount", "pulled");
    varve("rm", "pulled");
    expect(varve("pull", name)).toMatch(/Status: Image is up to date/);
    expect(varve("pull", "-q", name)).toBe(digest);
  });

  it("gets the manifest when it has all that the manifest refers to", () => {
    const name = `${plain.domain}/order/box:1`;
    varve("tag", `${plain.domain}/team/box:1`, name);
    const before = plain.requests().length;
    varve("push", "-q", name);
    const writes = plain.requests().filter((one, at) => at >= before && !/^(GET|HEAD)/.test(one));
    expect(writes.length).toBeGreaterThan(2);
    expect(writes.findIndex((one) => /^PUT \S*\/manifests\//.test(one))).toBe(writes.length - 1);
    varve("rmi", name);
  });

  it("is read by skopeo as we wrote it, and we read what skopeo wrote", () => {
    const copy = `${plain.domain}/skopeo/copy:1`;
    run("skopeo", [
      ...["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"],
      ...[`docker://${plain.domain}/team/box:1`, `docker://${copy}`, "--format", "v2s2"],
    ]);
    expect(varve("pull", "-q", copy)).toMatch(/^sha256:/);
    expect(varve("inspect", "--format", "{{json .Descriptor}}", copy)).toMatch(/docker/);
  });

  it("mounts blobs that another of its repositories has, and is not sent them again", () => {
    const name = `${plain.domain}/other/box:1`;
    varve("tag", `${plain.domain}/team/box:1`, name);
    const before = plain.requests().length;
    varve("push", "-q", name);
    const since = plain.requests().slice(before);
    expect(since.filter((one) => /^POST .*mount=sha256/.test(one)).length).toBeGreaterThan(0);
    expect(since.filter((one) => /^(PATCH|PUT) .*blobs/.test(one))).toEqual([]);
  });

  it("is asked for an image that is mounted and not here, unless that is forbidden", () => {
    const name = `${plain.domain}/other/box:1`;
    varve("rmi", name);
    const refused = tryVarve("mount", "--pull", "never", name, "--name", "never");
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(/not found/);
    varve("mount", name, "--name", "missing");
    varve("rm", "-f", "missing");
    const before = plain.requests().length;
    varve("mount", name, "--name", "missing");
    expect(plain.requests().length).toBe(before);
    varve("rm", "-f", "missing");
    varve("mount", "--pull", "always", name, "--name", "always");
    varve("rm", "-f", "always");
  });

  it("needs no network for a digest that is here", async () => {
    const digest = varve("pull", "-q", `${plain.domain}/team/box:1`);
    const before = plain.requests().length;
    varve("pull", `${plain.domain}/team/box@${digest}`);
    expect(plain.requests().length).toBe(before);
  });

  it("says what it does not have", () => {
    const { status, stderr } = tryVarve("pull", `${plain.domain}/team/box:none`);
    expect(status).toBe(1);
    expect(stderr).toMatch(/team\/box:none.*404/);
  });
});

describe("a registry with a certificate and a password", () => {
  const name = () => `${secure.domain}/team/box:1`;

  it("is not trusted before its CA is", () => {
    const { status, stderr } = tryVarve("pull", name());
    expect(status).toBe(1);
    expect(stderr).toMatch(/certificate is not trusted.*--tls-verify=false/);
    const unchecked = tryVarve("pull", "--tls-verify=false", name());
    expect(unchecked.stderr).toMatch(/401.*varve login/);
  });

  it("refuses a wrong password at login, and nothing is kept", () => {
    const directory = join(hosts, secure.domain);
    mkdirSync(directory);
    writeFileSync(join(directory, "ca.crt"), readFileSync(secure.certificate!));
    const wrong = tryVarve("login", "-u", "user", "-p", "wrong", secure.domain);
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).toMatch(/401/);
    expect(readdirSync(config)).toEqual([]);
  });

  it("is used with what login keeps, until logout", () => {
    writeFileSync(join(config, "config.json"), '{"psFormat":"kept"}');
    const login = attempt(
      join(PROJECT, "bin/varve"),
      ["login", "-u", "user", "--password-stdin", secure.domain],
      { env, input: "secret\n" },
    );
    expect(login.stdout).toBe("Login Succeeded\n");
    const file = join(config, "config.json");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({
      psFormat: "kept",
      auths: { [secure.domain]: { auth: Buffer.from("user:secret").toString("base64") } },
    });
    varve("tag", `${plain.domain}/team/box:1`, name());
    varve("push", name());
    varve("rmi", name());
    varve("pull", name());
    expect(varve("logout", secure.domain)).toMatch(/Removed the credentials/);
    expect(varve("logout", secure.domain)).toMatch(/Not logged in/);
    expect(tryVarve("pull", name()).stderr).toMatch(/401/);
  });

  it("takes credentials from the command line before those in files", () => {
    expect(varve("pull", "-q", "--creds", "user:secret", name())).toMatch(/^sha256:/);
    expect(tryVarve("pull", "--creds", "user:wrong", name()).status).toBe(1);
  });

  it("is reached through a mirror that hosts.toml names, which is told whom it stands for", () => {
    const directory = join(hosts, "registry.invalid");
    mkdirSync(directory);
    writeFileSync(
      join(directory, "hosts.toml"),
      `server = "https://registry.invalid"\n[host."http://${plain.domain}"]\n` +
        'capabilities = ["pull", "resolve"]\n',
    );
    const before = plain.requests().length;
    varve("pull", "registry.invalid/team/box:1");
    const asked = plain.requests().slice(before);
    expect(asked.some((one) => one.includes("/v2/team/box/manifests/1?ns=registry.invalid"))).toBe(
      true,
    );
  });
});

describe("a registry that asks for its clients' certificates", () => {
  it("is shown the one of its directory", async () => {
    const { cert, key } = makeCertificate(sandbox.makeDirectory("client"));
    const strict = await RegistryProcess.start({ tls: true, client: cert });
    try {
      const name = `${strict.domain}/team/box:1`;
      const directory = join(hosts, strict.domain);
      mkdirSync(directory);
      writeFileSync(join(directory, "ca.crt"), readFileSync(strict.certificate!));
      varve("tag", `${plain.domain}/team/box:1`, name);
      expect(tryVarve("push", name).status).toBe(1);
      writeFileSync(join(directory, "client.cert"), readFileSync(cert));
      writeFileSync(join(directory, "client.key"), readFileSync(key));
      varve("push", name);
      varve("rmi", name);
      expect(varve("pull", "-q", name)).toMatch(/^sha256:/);
      varve("rmi", name);
    } finally {
      await strict.dispose();
    }
  });
});

describe("a pull that somebody interrupts", () => {
  it("ends at once, and the next one goes on where it was", async () => {
    const slow = await FakeRegistry.start();
    const { digest, size, bytes } = addSlowImage(slow);
    try {
      const child = spawn(join(PROJECT, "bin/varve"), ["pull", `${slow.domain}/slow/app:1`], {
        env: { ...process.env, ...env },
        stdio: ["ignore", "ignore", "pipe"],
      });
      let stderr = "";
      for await (const chunk of child.stderr) {
        stderr += String(chunk);
        if (/: downloading/.test(stderr)) break;
      }
      expect(stderr.split("\n")[0]).toBe(`${slow.domain}/slow/app:1: resolving`);
      child.kill("SIGINT");
      const [code] = (await once(child, "exit")) as [number | null];
      expect(code).toBe(130);
      slow.intercept = () => false;
      slow.requests.length = 0;
      // Not spawnSync: this process is the registry.
      const next = spawn(join(PROJECT, "bin/varve"), ["pull", "-q", `${slow.domain}/slow/app:1`], {
        env: { ...process.env, ...env },
        stdio: "ignore",
      });
      expect(await once(next, "exit")).toEqual([0, null]);
      const asked = slow.requests.filter((one) => one.includes(digest));
      expect(asked).toHaveLength(1);
      expect(Number(/bytes=(\d+)-/.exec(asked[0]!)?.[1])).toBeGreaterThanOrEqual(bytes);
      expect(size).toBeGreaterThan(bytes);
    } finally {
      await slow.dispose();
    }
  });

  /** An image whose layer stops after some bytes, until nobody intercepts any more. */
  function addSlowImage(registry: FakeRegistry) {
    const tree = sandbox.makeDirectory("slow-layer");
    writeFileSync(join(tree, "data"), randomBytes(1 << 20));
    const tar = spawnSync("tar", ["-C", tree, "-c", "data"], { maxBuffer: 1 << 24 }).stdout;
    const layer = registry.addBlob(tar);
    const { arch } = process;
    const config = registry.addBlob(
      Buffer.from(
        JSON.stringify({
          ...{ os: "linux", architecture: arch === "x64" ? "amd64" : arch },
          rootfs: { type: "layers", diff_ids: [layer.digest] },
        }),
      ),
      "application/vnd.oci.image.config.v1+json",
    );
    const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] };
    registry.addManifest("1", document);
    const bytes = 300_000;
    registry.intercept = (request, response) => {
      if (!request.url?.endsWith(layer.digest)) return false;
      response.writeHead(200, { "content-length": tar.length });
      response.write(tar.subarray(0, bytes));
      return true;
    };
    return { digest: layer.digest, size: tar.length, bytes };
  }
});

describe("podman's registries.conf", () => {
  const file = join(hosts, "registries.conf");
  const withConf = { ...env, CONTAINERS_REGISTRIES_CONF: file };
  const conf = (text: string) => writeFileSync(file, text);
  const tryWith = (...args: string[]) =>
    attempt(join(PROJECT, "bin/varve"), args, { env: withConf });
  const varveWith = (...args: string[]) =>
    run(join(PROJECT, "bin/varve"), args, { env: withConf }).trimEnd();

  it("sends pulls to where a registry really is, and keeps the name", () => {
    conf(`[[registry]]\nprefix = "elsewhere.invalid/our"\nlocation = "${plain.domain}/team"`);
    const pulled = varveWith("pull", "elsewhere.invalid/our/box:1").split("\n");
    expect(pulled.at(-1)).toBe("elsewhere.invalid/our/box:1");
    varveWith("rmi", "elsewhere.invalid/our/box:1");
  });

  it("says what a short name means, for pulls, mounts and builds", () => {
    conf(`unqualified-search-registries = ["${plain.domain}"]`);
    expect(varveWith("pull", "team/box:1").split("\n").at(-1)).toBe(`${plain.domain}/team/box:1`);
    const before = plain.requests().length;
    varveWith("mount", "team/box:1", "--name", "short");
    varveWith("build-step", "team/box:1", "-q", "--env", "A=1");
    expect(plain.requests().length).toBe(before);
    varveWith("rm", "-f", "short");
    conf(`[aliases]\nbox = "${plain.domain}/team/box"`);
    expect(varveWith("pull", "-q", "box:1")).toMatch(/^sha256:/);
  });

  it("lets several registries be searched only when guessing is allowed", () => {
    const search = `unqualified-search-registries = ["${plain.domain}/nothing", "${plain.domain}"]`;
    conf(search);
    const refused = tryWith("pull", "team/box:1");
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(/name one of them/);
    conf(`${search}\nshort-name-mode = "permissive"`);
    expect(varveWith("pull", "team/box:1").split("\n").at(-1)).toBe(`${plain.domain}/team/box:1`);
    expect(tryWith("pull", "team/absent:1").stderr).toMatch(/nothing\/team\/absent.*; .*404/);
  });

  it("blocks what it is told to", () => {
    conf(`[[registry]]\nlocation = "${plain.domain}"\nblocked = true`);
    expect(tryWith("pull", `${plain.domain}/team/box:1`).stderr).toMatch(/registries\.conf blocks/);
  });
});
