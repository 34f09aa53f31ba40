/** Pulls through a daemon: what of an image is fetched, and what is refused. */

import { execFileSync } from "node:child_process";
import { createPrivateKey, randomBytes, sign, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Descriptor } from "../../../src/content/descriptor.js";
import { openDatabase } from "../../../src/metadata/database.js";
import { DaemonSandbox } from "../daemon/daemon-process.js";
import { FakeRegistry, OCI_MANIFEST, sha256 } from "./fake-registry.js";
import { makeCertificate, RegistryProcess } from "./registry-process.js";

const OCI_INDEX = "application/vnd.oci.image.index.v1+json";
const CONFIG = "application/vnd.oci.image.config.v1+json";
const SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const access = { environment: { HOME: "/nowhere", DOCKER_CONFIG: "/nowhere" } };

let daemon: DaemonSandbox;
let fake: FakeRegistry;

beforeEach(async () => {
  daemon = new DaemonSandbox();
  fake = await FakeRegistry.start();
  await daemon.start();
});

afterEach(async () => {
  await daemon.dispose();
  await fake.dispose();
});

/** A layer with one file of random bytes. */
function makeTar(name: string): Buffer {
  const directory = mkdtempSync(path.join(os.tmpdir(), "varve-layer-"));
  try {
    execFileSync("sh", ["-c", `head -c 200000 /dev/urandom > ${name}`], { cwd: directory });
    return execFileSync("tar", ["c", name], { cwd: directory, maxBuffer: 1 << 24 });
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Adds an image of two layers under a tag. */
function addImage(tag: string, architecture: string): Descriptor {
  const tars = [makeTar("one"), makeTar("two")];
  const rootfs = { type: "layers", diff_ids: tars.map(sha256) };
  const config = fake.addBlob(
    Buffer.from(JSON.stringify({ os: "linux", architecture, rootfs })),
    CONFIG,
  );
  const type = "application/vnd.oci.image.layer.v1.tar+gzip";
  const layers = tars.map((tar) => fake.addBlob(gzipSync(tar), type));
  const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers };
  return fake.addManifest(tag, document);
}

function addIndex(tag: string, manifests: object[]): Descriptor {
  const document = { schemaVersion: 2, mediaType: OCI_INDEX, manifests };
  return fake.addManifest(tag, document, OCI_INDEX);
}

const platform = (architecture: string, variant?: string) => ({
  platform: { os: "linux", architecture, ...(variant === undefined ? {} : { variant }) },
});

async function pull(
  reference: string,
  options: {
    platforms?: string[];
    allPlatforms?: boolean;
    noUnpack?: boolean;
    access?: { environment: Record<string, string>; username?: string; password?: string };
  } = {},
  signal?: AbortSignal,
) {
  const actions = new Set<string>();
  const steps = new Map<string, string[]>();
  const request = { reference, access, ...options };
  const call = signal === undefined ? {} : { signal };
  for await (const { progress, image } of daemon.client.pullImage(request, call)) {
    if (progress !== undefined) {
      const { id, action } = progress;
      actions.add(action);
      const known = steps.get(id) ?? [];
      if (known.at(-1) !== action) steps.set(id, [...known, action]);
    }
    if (image !== undefined) return { image, actions, steps };
  }
  throw new Error("no image came");
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "none",
    (error: { code?: string; message: string }) => `${error.code}: ${error.message}`,
  );
const name = (tag: string) => `${fake.domain}/team/app:${tag}`;

describe("an index", () => {
  it("gives the wanted platform, and nothing else of it is asked for", async () => {
    const manifests = [
      { ...addImage("a", "amd64"), ...platform("amd64") },
      { ...addImage("b", "arm64"), ...platform("arm64") },
      { ...addImage("c", "arm"), ...platform("arm", "v6") },
      {
        ...fake.addManifest("att", { schemaVersion: 2 }),
        ...platform("unknown"),
        annotations: { "vnd.docker.reference.type": "attestation-manifest" },
      },
    ];
    const index = addIndex("all", manifests);
    // What v7 hardware runs when there is no v7 image is v6.
    const { image } = await pull(name("all"), { platforms: ["linux/arm/v7"], noUnpack: true });
    expect(image.digest).toBe(index.digest);
    const asked = fake.requests.filter((one) => one.startsWith("GET") && /manifests/.test(one));
    expect(asked.map((one) => one.split("/").at(-1))).toEqual([index.digest, manifests[2]!.digest]);
    expect(fake.requests.filter((one) => /blobs/.test(one))).toHaveLength(3);
  });

  it("that is nested is followed, and a platform that it lacks is named with those it has", async () => {
    const inner = addIndex("inner", [{ ...addImage("a", "amd64"), ...platform("amd64") }]);
    addIndex("outer", [inner]);
    await pull(name("outer"), { platforms: ["linux/amd64"] });
    expect(await codeOf(pull(name("outer"), { platforms: ["linux/s390x"] }))).toMatch(
      /^NOT_FOUND: .*linux\/s390x.*linux\/amd64/,
    );
  });

  it("gives all platforms when asked, and goes whole to another registry", async () => {
    const manifests = ["amd64", "arm64"].map((one) => ({
      ...addImage(one, one),
      ...platform(one),
    }));
    const index = addIndex("all", manifests);
    await pull(name("all"), { allPlatforms: true });
    const registry = await RegistryProcess.start();
    try {
      const destination = `${registry.domain}/copy:1`;
      for await (const { image } of daemon.client.pushImage({
        ...{ reference: name("all"), destination, access },
      })) {
        if (image !== undefined) expect(image.digest).toBe(index.digest);
      }
      const answer = await globalThis.fetch(`${registry.address}/v2/copy/manifests/1`, {
        headers: { accept: OCI_INDEX },
      });
      expect(sha256(Buffer.from(await answer.arrayBuffer()))).toBe(index.digest);
    } finally {
      await registry.dispose();
    }
  });

  it("of which one platform is here gives that one to another registry, and says so", async () => {
    const manifests = ["amd64", "arm64"].map((one) => ({
      ...addImage(one, one),
      ...platform(one),
    }));
    addIndex("all", manifests);
    await pull(name("all"), { platforms: ["linux/amd64"], noUnpack: true });
    const registry = await RegistryProcess.start();
    try {
      const request = { reference: name("all"), destination: `${registry.domain}/copy:1`, access };
      for await (const { image } of daemon.client.pushImage(request)) {
        if (image === undefined) continue;
        expect(image.digest).toBe(manifests[0]!.digest);
        expect(image.notice).toMatch(/only linux\/amd64/);
      }
      const whole = daemon.client.pushImage({ ...request, allPlatforms: true });
      const failing = (async () => {
        for await (const _ of whole);
      })();
      expect(await codeOf(failing)).toMatch(/^NOT_FOUND: .*--all-platforms/);
    } finally {
      await registry.dispose();
    }
  });
});

describe("unpacked layers", () => {
  it("are labelled with the digest of their tar, and with where they came from", async () => {
    const { digest } = addImage("1", "amd64");
    const manifest = JSON.parse(fake.manifests.get(digest)!.bytes.toString());
    const config = JSON.parse(fake.blobs.get(manifest.config.digest)!.toString());
    await pull(name("1"), { platforms: ["linux/amd64"] });
    await daemon.end();
    const database = openDatabase(daemon.path("root/varve.db"));
    try {
      const [layer] = manifest.layers as Descriptor[];
      expect(database.blobs.get(layer!.digest)?.labels).toEqual({
        "containerd.io/uncompressed": config.rootfs.diff_ids[0],
        [`containerd.io/distribution.source.${fake.domain}`]: "team/app",
      });
    } finally {
      database.close();
    }
  });
});

describe("progress", () => {
  it("names what each layer goes through, and what is here already", async () => {
    const { digest } = addImage("1", "amd64");
    const { config, layers } = JSON.parse(fake.manifests.get(digest)!.bytes.toString()) as {
      config: Descriptor;
      layers: Descriptor[];
    };
    // Only the last of what waits for the reader is sent: slow enough to be seen.
    fake.intercept = (request, response) => {
      if (!layers.some((layer) => request.url?.endsWith(layer.digest))) return false;
      const bytes = fake.blobs.get(sha256Of(request.url))!;
      response.writeHead(200, { "content-length": bytes.length });
      response.write(bytes.subarray(0, 1000));
      setTimeout(() => response.end(bytes.subarray(1000)), 200);
      return true;
    };
    const options = { platforms: ["linux/amd64"] };
    const { steps } = await pull(name("1"), options);
    expect(steps.get(name("1"))![0]).toBe("resolving");
    for (const layer of layers) {
      const seen = steps.get(layer.digest)!;
      const order = ["waiting", "downloading", "verifying", "unpacking", "indexing", "done"];
      expect(seen).toEqual(expect.arrayContaining(["downloading", "done"]));
      expect(order.filter((action) => seen.includes(action))).toEqual([...new Set(seen)]);
    }
    fake.addManifest("2", { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers });
    const again = await pull(name("2"), options);
    expect([...again.steps.get(layers[0]!.digest)!]).toEqual(["exists"]);
  });
});

/** The digest at the end of a path. */
const sha256Of = (url = "") => url.slice(url.lastIndexOf("sha256:"));

describe("a layer that may not be distributed", () => {
  it("is fetched from its own address, without credentials, and not pushed", async () => {
    const { digest } = addImage("1", "amd64");
    const manifest = JSON.parse(fake.manifests.get(digest)!.bytes.toString());
    const [first, second] = manifest.layers as [Descriptor, Descriptor];
    const bytes = fake.blobs.get(second.digest)!;
    const elsewhere = await FakeRegistry.start();
    try {
      const seen: unknown[] = [];
      elsewhere.intercept = (request, response) => {
        seen.push(request.headers.authorization);
        response.end(bytes);
        return true;
      };
      fake.blobs.delete(second.digest);
      const mediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
      const urls = [`http://${elsewhere.domain}/base.tar.gz`];
      const layers = [first, { ...second, mediaType, urls }];
      fake.addManifest("2", { ...manifest, layers });
      const means = { ...access, username: "user", password: "secret" };
      await pull(name("2"), { platforms: ["linux/amd64"], access: means });
      expect(seen).toEqual([undefined]);
      const sent: string[] = [];
      fake.intercept = (request, response) => {
        if (request.method === "GET" || request.method === "HEAD") return false;
        sent.push(`${request.method} ${request.url?.replace(/^.*digest=/, "")}`);
        const location = "/v2/other/app/blobs/uploads/one";
        response.writeHead(request.method === "POST" ? 202 : 201, { location }).end();
        return true;
      };
      const request = { reference: name("2"), destination: `${fake.domain}/other/app:2`, access };
      fake.blobs.clear();
      for await (const _ of daemon.client.pushImage(request));
      const digests = sent.map((one) => decodeURIComponent(one));
      expect(digests.some((one) => one.includes(first.digest))).toBe(true);
      expect(digests.some((one) => one.includes(second.digest))).toBe(false);
    } finally {
      await elsewhere.dispose();
    }
  });
});

describe("what is no image", () => {
  it("is refused by its name: schema 1, an artifact", async () => {
    fake.addManifest("old", { schemaVersion: 1, signatures: [] }, SCHEMA1);
    expect(await codeOf(pull(name("old")))).toMatch(/^UNSUPPORTED: .*schema 1/);
    const config = fake.addBlob(Buffer.from("{}"), "application/vnd.cncf.helm.config.v1+json");
    fake.addManifest("chart", { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] });
    expect(await codeOf(pull(name("chart")))).toMatch(/^UNSUPPORTED: .*helm/);
  });
});

describe("a pull that is interrupted", () => {
  it("keeps the layers that it has, through collections and a restart of the daemon", async () => {
    const { digest } = addImage("1", "amd64");
    const { layers } = JSON.parse(fake.manifests.get(digest)!.bytes.toString()) as {
      layers: Descriptor[];
    };
    const [done, stuck] = layers as [Descriptor, Descriptor];
    const controller = new AbortController();
    fake.intercept = (request, response) => {
      if (!request.url?.endsWith(stuck.digest)) return false;
      response.writeHead(200, { "content-length": stuck.size });
      response.write(fake.blobs.get(stuck.digest)!.subarray(0, 1000));
      setTimeout(() => controller.abort(), 300);
      return true;
    };
    const options = { platforms: ["linux/amd64"] };
    expect(await codeOf(pull(name("1"), options, controller.signal))).toMatch(/^CANCELLED/);
    await daemon.end("SIGKILL");
    await daemon.start();
    await daemon.client.removeImage({ reference: "nothing" }).catch(() => undefined);
    fake.intercept = () => false;
    fake.requests.length = 0;
    const { image, actions } = await pull(name("1"), options);
    expect(image.upToDate).toBe(false);
    expect(fake.requests.some((one) => one.includes(done.digest))).toBe(false);
    expect(fake.requests).toContainEqual(expect.stringContaining(`${stuck.digest} bytes=1000-`));
    expect(actions).toContain("unpacking");
  });
});

describe("a token server", () => {
  it("gives Debian's registry the tokens that it asks for, for pulls and pushes", async () => {
    const directory = mkdtempSync(path.join(os.tmpdir(), "varve-token-"));
    const { cert, key } = makeCertificate(directory);
    const scopes: string[] = [];
    const server = createServer((request, response) => {
      const url = new URL(request.url ?? "", "http://token");
      const wanted = url.searchParams.getAll("scope").flatMap((one) => one.split(" "));
      scopes.push(...wanted);
      const isUser =
        request.headers.authorization === `Basic ${Buffer.from("user:secret").toString("base64")}`;
      const token = isUser ? makeToken(cert, key, wanted) : makeToken(cert, key, []);
      response.end(JSON.stringify({ token, expires_in: 1 }));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const realm = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
    const registry = await RegistryProcess.start({ token: { realm, certificate: cert } });
    try {
      addImage("1", "amd64");
      await pull(name("1"), { platforms: ["linux/amd64"] });
      const destination = `${registry.domain}/with/tokens:1`;
      const means = { ...access, username: "user", password: "secret" };
      const push = async (as: object) => {
        const request = { reference: name("1"), destination, access: as };
        for await (const _ of daemon.client.pushImage(request));
      };
      expect(await codeOf(push(access))).toMatch(/^PERMISSION_DENIED/);
      await push(means);
      expect(scopes).toContain("repository:with/tokens:pull,push");
      await daemon.client.removeImage({ reference: name("1") });
      await pull(destination, { platforms: ["linux/amd64"], access: means });
      expect(scopes).toContain("repository:with/tokens:pull");
    } finally {
      server.close();
      await registry.dispose();
      rmSync(directory, { recursive: true });
    }
  });
});

/** A JSON web token as the distribution project specifies it. */
function makeToken(cert: string, key: string, scopes: string[]): string {
  const now = Math.floor(Date.now() / 1000);
  const certificate = new X509Certificate(readFileSync(cert)).raw.toString("base64");
  const header = { typ: "JWT", alg: "ES256", x5c: [certificate] };
  const claims = {
    ...{ iss: "tests", sub: "user", aud: "tests", nbf: now - 10, iat: now, exp: now + 60 },
    jti: randomBytes(8).toString("hex"),
    access: scopes.map((scope) => {
      const [type, repository, actions = ""] = scope.split(":");
      return { type, name: repository, actions: actions.split(",") };
    }),
  };
  const text = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  const options = { key: createPrivateKey(readFileSync(key)), dsaEncoding: "ieee-p1363" } as const;
  return `${text}.${sign("sha256", Buffer.from(text), options).toString("base64url")}`;
}
