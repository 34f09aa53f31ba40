/** Uploads over lines that break, to Debian's registry and to ones that are particular. */

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import net from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { uploadBlob } from "../../../src/registry/upload.js";
import { sha256 } from "./fake-registry.js";
import { FetchScene } from "./fetch-scene.js";
import { RegistryProcess } from "./registry-process.js";

const MIB = 1 << 20;
const body = randomBytes(12 * MIB);

let scene: FetchScene;
beforeEach(async () => {
  scene = await FetchScene.start();
});
afterEach(() => scene.dispose());

/** A line that breaks each of its first `count` connections when `bytes` have gone up. */
async function breakingLine(port: number, count: number, bytes: number) {
  let left = count;
  const server = net.createServer((client) => {
    const upstream = net.connect({ port, host: "127.0.0.1" });
    let sent = 0;
    const end = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) socket.on("error", end).on("close", end);
    client.on("data", (chunk: Buffer) => {
      sent += chunk.length;
      if (sent > bytes && left > 0) {
        left--;
        // What was sent before arrives.
        setTimeout(end, 20);
        client.pause();
      } else upstream.write(chunk);
    });
    upstream.pipe(client);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const domain = `127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  return { domain, close: () => server.close() };
}

function upload(domain: string, bytes: Buffer, seen: number[] = []) {
  const file = `${scene.root}/blob`;
  writeFileSync(file, bytes);
  const descriptor = { mediaType: "x/y", digest: sha256(bytes), size: bytes.length };
  const repository = scene.registries.repository({ domain, path: "pushed/app" }, scene.access);
  return uploadBlob({
    ...{ repository, descriptor, file, sources: [] },
    report: (current) => seen.push(current),
  });
}

describe("an upload that breaks", () => {
  it("is brought to its end at Debian's registry", async () => {
    const registry = await RegistryProcess.start();
    const line = await breakingLine(registry.port, 2, 5 * MIB);
    try {
      expect(await upload(line.domain, body)).toBe("sent");
      const address = `${registry.address}/v2/pushed/app/blobs/${sha256(body)}`;
      expect(sha256(Buffer.from(await (await fetch(address)).arrayBuffer()))).toBe(sha256(body));
      expect(await upload(line.domain, body)).toBe("exists");
    } finally {
      line.close();
      await registry.dispose();
    }
  });

  it("goes on where the registry says that it stopped", async () => {
    const registry = new UploadRegistry();
    registry.breakAfter = [3 * MIB, 7 * MIB];
    scene.fake.intercept = (request, response) => registry.answer(request, response);
    const seen: number[] = [];
    expect(await upload(scene.fake.domain, body, seen)).toBe("sent");
    expect(sha256(registry.received)).toBe(sha256(body));
    expect(registry.starts).toBe(1);
    expect(seen.at(-1)).toBe(body.length);
  });

  it("that was finished but for the answer is not sent again", async () => {
    const registry = new UploadRegistry();
    registry.losesLastAnswer = true;
    scene.fake.intercept = (request, response) => registry.answer(request, response);
    expect(await upload(scene.fake.domain, body)).toBe("sent");
    expect(registry.starts).toBe(1);
  });
});

describe("a registry behind a proxy that allows only short requests", () => {
  it("is sent the blob in chunks", async () => {
    const registry = new UploadRegistry();
    registry.maxBody = 5 * MIB;
    scene.fake.intercept = (request, response) => registry.answer(request, response);
    expect(await upload(scene.fake.domain, body)).toBe("sent");
    expect(sha256(registry.received)).toBe(sha256(body));
    expect(registry.starts).toBe(1);
  });
});

/** One upload at a time, as the distribution specification has it. */
class UploadRegistry {
  received = Buffer.alloc(0);
  starts = 0;
  /** Connections break when so much of the blob is here. */
  breakAfter: number[] = [];
  maxBody = Number.POSITIVE_INFINITY;
  losesLastAnswer = false;
  #isDone = false;

  answer(request: IncomingMessage, response: ServerResponse): boolean {
    const location = "/v2/pushed/app/blobs/uploads/one";
    const range = `0-${Math.max(0, this.received.length - 1)}`;
    if (request.method === "HEAD") response.writeHead(this.#isDone ? 200 : 404).end();
    else if (request.method === "GET") {
      response.writeHead(this.#isDone ? 404 : 204, { location, range }).end();
    } else if (Number(request.headers["content-length"] ?? 0) > this.maxBody) {
      response.writeHead(413).end();
    } else if (request.method === "POST") {
      this.starts++;
      response.writeHead(202, { location }).end();
    } else this.#take(request, () => this.#accept(request, response, { location, range }));
    return true;
  }

  #take(request: IncomingMessage, whenWhole: () => void): void {
    const at = /^(\d+)-/.exec(String(request.headers["content-range"] ?? ""))?.[1];
    if (at !== undefined) expect(Number(at)).toBe(this.received.length);
    request.on("data", (chunk: Buffer) => {
      if (request.destroyed) return;
      this.received = Buffer.concat([this.received, chunk]);
      if (this.received.length < (this.breakAfter[0] ?? Number.POSITIVE_INFINITY)) return;
      this.breakAfter.shift();
      request.socket.destroy();
    });
    request.on("end", whenWhole);
  }

  #accept(request: IncomingMessage, response: ServerResponse, headers: Record<string, string>) {
    if (request.method === "PATCH") {
      response.writeHead(202, headers).end();
      return;
    }
    this.#isDone = true;
    if (this.losesLastAnswer) request.socket.destroy();
    else response.writeHead(201).end();
  }
}
