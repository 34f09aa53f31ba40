/** Fetching from registries that fail, lie and make one wait. */

import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import type { ServerResponse } from "node:http";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Descriptor } from "../../../src/content/descriptor.js";
import { breakAfter, FakeRegistry, sha256 } from "./fake-registry.js";
import { codeOf, FetchScene } from "./fetch-scene.js";

const body = randomBytes(1 << 20);

let scene: FetchScene;
beforeEach(async () => {
  scene = await FetchScene.start();
});
afterEach(() => scene.dispose());

const fetch = (descriptor: Descriptor, signal?: AbortSignal, means = scene.access) =>
  scene.fetch(descriptor, signal === undefined ? {} : { signal }, means);

describe("a blob on a bad connection", () => {
  it("goes on by Range where the connection broke", async () => {
    const blob = scene.fake.addBlob(body);
    scene.misbehave(1, (response) => breakAfter(response, body, 300_000));
    await fetch(blob);
    expect(scene.stored(blob).equals(body)).toBe(true);
    expect(scene.blobRequests()[1]).toMatch(/ bytes=[1-9]\d*-$/);
  });

  it("comes in right from a server without ranges", async () => {
    const blob = scene.fake.addBlob(body);
    scene.misbehave(1, (response) => breakAfter(response, body, 300_000));
    const first = scene.fake.intercept;
    scene.fake.intercept = (request, response) => {
      if (first(request, response)) return true;
      if (request.headers.range === undefined) return false;
      response.writeHead(200, { "content-length": body.length }).end(body);
      return true;
    };
    await fetch(blob);
    expect(scene.stored(blob).equals(body)).toBe(true);
  });

  it("is asked for again after 429 and 5xx, when Retry-After says", async () => {
    const blob = scene.fake.addBlob(body);
    scene.misbehave(2, (response) => response.writeHead(429, { "retry-after": "0" }).end());
    await fetch(blob);
    expect(scene.blobRequests()).toHaveLength(3);
    const other = scene.fake.addBlob(randomBytes(100));
    scene.misbehave(1, (response) => response.writeHead(503).end("busy"));
    await fetch(other);
    expect(scene.content.has(other.digest)).toBe(true);
  });

  it("is given up after some tries without progress, and what came stays", async () => {
    const blob = scene.fake.addBlob(body);
    scene.misbehave(100, (response) => response.writeHead(500).end());
    expect(await codeOf(fetch(blob))).toBe("UNAVAILABLE");
    expect(scene.blobRequests()).toHaveLength(4);
    expect(scene.content.has(blob.digest)).toBe(false);
  });

  it("keeps its bytes when it is cancelled, for the next time", async () => {
    const blob = scene.fake.addBlob(body);
    const controller = new AbortController();
    scene.fake.intercept = (request, response) => {
      if (!request.url?.includes("/blobs/")) return false;
      response.writeHead(200, { "content-length": body.length });
      response.write(body.subarray(0, 400_000));
      setTimeout(() => controller.abort(), 100);
      return true;
    };
    expect(await codeOf(fetch(blob, controller.signal))).toBe("CANCELLED");
    expect(scene.partial()).toHaveLength(1);
    scene.fake.intercept = () => false;
    await fetch(blob);
    expect(scene.stored(blob).equals(body)).toBe(true);
    expect(scene.blobRequests()[1]).toMatch(/ bytes=[1-9]\d*-$/);
    expect(scene.partial()).toEqual([]);
  });
});

describe("one digest", () => {
  it("is downloaded once, however many want it, and one of them may leave", async () => {
    const blob = scene.fake.addBlob(body);
    const controller = new AbortController();
    const held: ServerResponse[] = [];
    scene.misbehave(1, (response) => held.push(response));
    const leaving = codeOf(fetch(blob, controller.signal));
    const staying = Array.from({ length: 5 }, () => fetch(blob));
    while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    controller.abort();
    expect(await leaving).toBe("CANCELLED");
    held[0]!.writeHead(200, { "content-length": body.length }).end(body);
    await Promise.all(staying);
    expect(scene.blobRequests()).toHaveLength(1);
    expect(scene.database.leases.holders({ type: "content", id: blob.digest })).toHaveLength(5);
  });
});

describe("a registry that lies", () => {
  it.each<[string, (response: ServerResponse, good: Buffer) => void, RegExp]>([
    ["sends other bytes", (r, good) => r.end(Buffer.alloc(good.length)), /CORRUPT_DATA/],
    ["sends too few bytes", (r, good) => r.end(good.subarray(1)), /UNAVAILABLE|CORRUPT_DATA/],
    ["sends bytes without end", (r) => void sendForever(r), /CORRUPT_DATA/],
    [
      "sends a web page",
      (r) => r.writeHead(200, { "content-type": "text/html" }).end("<html>"),
      /CORRUPT_DATA/,
    ],
    ["redirects in a circle", (r) => r.writeHead(307, { location: "/v2/x/blobs/y" }).end(), /UNAV/],
    ["sends a byte now and then", (r) => void drip(r), /UNAVAILABLE/],
    ["says nothing at all", (r) => r.socket?.destroy(), /UNAVAILABLE/],
  ])("and %s gets an error, and the store no blob", async (_, answer, code) => {
    const good = randomBytes(10_000);
    const blob = scene.fake.addBlob(good);
    scene.misbehave(1000, (response) => answer(response, good));
    expect(await codeOf(fetch(blob))).toMatch(code);
    expect(scene.content.has(blob.digest)).toBe(false);
    expect(readdirSync(path.join(scene.root, "blobs/sha256"))).toEqual([]);
  });
});

function sendForever(response: ServerResponse): void {
  response.writeHead(200);
  const timer = setInterval(() => response.write(Buffer.alloc(65536)), 1);
  response.on("close", () => clearInterval(timer));
}

function drip(response: ServerResponse): void {
  response.writeHead(200);
  const timer = setInterval(() => response.write("x"), 20);
  response.on("close", () => clearInterval(timer));
}

describe("credentials", () => {
  const credentials = { username: "user", password: "secret" };
  const basic = `Basic ${Buffer.from("user:secret").toString("base64")}`;

  it("do not follow a redirect to a blob store", async () => {
    const blob = scene.fake.addBlob(body);
    const store = await FakeRegistry.start();
    try {
      store.blobs.set(blob.digest, body);
      const seen: (string | undefined)[] = [];
      store.intercept = (request) => {
        seen.push(request.headers.authorization);
        return false;
      };
      scene.fake.intercept = (request, response) => {
        if (request.headers.authorization !== basic) {
          response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
        } else {
          const location = `http://${store.domain}/v2/any/blobs/${blob.digest}`;
          response.writeHead(307, { location }).end();
        }
        return true;
      };
      await fetch(blob, undefined, { ...scene.access, credentials });
      expect(scene.stored(blob).equals(body)).toBe(true);
      expect(seen).toEqual([undefined]);
    } finally {
      await store.dispose();
    }
  });

  it("become tokens, which are renewed when they end in the middle", async () => {
    const blobs = [1, 2, 3].map(() => scene.fake.addBlob(randomBytes(1000)));
    let issued = 0;
    const asked: URL[] = [];
    scene.fake.intercept = (request, response) => {
      const url = new URL(request.url ?? "", `http://${scene.fake.domain}`);
      if (url.pathname === "/token") {
        expect(request.headers.authorization).toBe(basic);
        asked.push(url);
        response.end(JSON.stringify({ token: `token-${++issued}`, expires_in: 300 }));
        return true;
      }
      // Each token is good for the latest issue only, and the third blob ends the first one.
      const wanted = url.pathname.endsWith(blobs[2]!.digest) ? "Bearer token-2" : "Bearer token-1";
      if (request.headers.authorization === wanted) return false;
      const challenge = `Bearer realm="http://${scene.fake.domain}/token",service="tests"`;
      response.writeHead(401, { "www-authenticate": challenge }).end();
      return true;
    };
    const one = scene.repository({ ...scene.access, credentials });
    for (const blob of blobs)
      await scene.registries.fetch(blob, { repository: one, lease: scene.lease() });
    expect(issued).toBe(2);
    expect(asked[0]!.searchParams.get("scope")).toBe("repository:team/app:pull");
    expect(asked[0]!.searchParams.get("service")).toBe("tests");
  });

  it("that are an identity token are sent to the token server only, in a form", async () => {
    const blob = scene.fake.addBlob(randomBytes(1000));
    const forms: string[] = [];
    scene.fake.intercept = (request, response) => {
      if (request.url === "/token") {
        request.on("data", (chunk: Buffer) => forms.push(chunk.toString()));
        request.on("end", () => response.end(JSON.stringify({ access_token: "t" })));
        return true;
      }
      if (request.headers.authorization === "Bearer t") return false;
      const challenge = `Bearer realm="http://${scene.fake.domain}/token",service="tests"`;
      response.writeHead(401, { "www-authenticate": challenge }).end();
      return true;
    };
    const identity = { ...scene.access, credentials: { identityToken: "refresh-me" } };
    await fetch(blob, undefined, identity);
    expect(new URLSearchParams(forms[0]).get("refresh_token")).toBe("refresh-me");
    expect(new URLSearchParams(forms[0]).get("grant_type")).toBe("refresh_token");
  });
});

describe("a tag", () => {
  it("is resolved by HEAD alone, once for many that ask at a time and for five seconds after", async () => {
    const manifest = scene.fake.addManifest("1", { schemaVersion: 2 });
    const asks = Array.from({ length: 20 }, () =>
      scene.registries.resolve(scene.repository(), "1", scene.access),
    );
    for (const { descriptor } of await Promise.all(asks)) expect(descriptor).toEqual(manifest);
    await scene.registries.resolve(scene.repository(), "1", scene.access);
    expect(scene.fake.requests).toEqual(["HEAD /v2/team/app/manifests/1"]);
    scene.registries.forget(scene.fake.domain, "team/app");
    await scene.registries.resolve(scene.repository(), "1", scene.access);
    expect(scene.fake.requests).toHaveLength(2);
  });

  it("is resolved by GET where HEAD is not allowed, and by a digest that must be right", async () => {
    const manifest = scene.fake.addManifest("1", { schemaVersion: 2 });
    scene.fake.intercept = (request, response) => {
      if (request.method !== "HEAD") return false;
      response.writeHead(405).end();
      return true;
    };
    const { descriptor, bytes } = await scene.registries.resolve(
      scene.repository(),
      "1",
      scene.access,
    );
    expect(descriptor).toEqual(manifest);
    expect(sha256(bytes!)).toBe(manifest.digest);
    const other = sha256(Buffer.from("other"));
    scene.fake.manifests.set(other, scene.fake.manifests.get("1")!);
    expect(await codeOf(scene.registries.resolve(scene.repository(), other, scene.access))).toBe(
      "CORRUPT_DATA",
    );
  });

  it("that was not there is asked for again", async () => {
    expect(await codeOf(scene.registries.resolve(scene.repository(), "1", scene.access))).toBe(
      "NOT_FOUND",
    );
    const manifest = scene.fake.addManifest("1", { schemaVersion: 2 });
    const { descriptor } = await scene.registries.resolve(scene.repository(), "1", scene.access);
    expect(descriptor).toEqual(manifest);
  });

  it("that leads to a web page is no manifest", async () => {
    scene.fake.intercept = (_, response) => {
      response.writeHead(200, { "content-type": "text/html" }).end("<html>Welcome</html>");
      return true;
    };
    expect(await codeOf(scene.registries.resolve(scene.repository(), "1", scene.access))).toBe(
      "CORRUPT_DATA",
    );
  });
});
