/** A registry of the tests' own that can be told to misbehave. */

import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Descriptor } from "../../../src/content/descriptor.js";
import type { Digest } from "../../../src/content/digest.js";

/** Answers a request in the registry's stead; false leaves it to the registry. */
export type Intercept = (request: IncomingMessage, response: ServerResponse) => boolean;

export const sha256 = (data: Buffer): Digest =>
  `sha256:${createHash("sha256").update(data).digest("hex")}` as Digest;

export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";

export class FakeRegistry {
  /** "METHOD /path", with the range where there was one. */
  readonly requests: string[] = [];
  readonly blobs = new Map<string, Buffer>();
  readonly manifests = new Map<string, { type: string; bytes: Buffer }>();
  intercept: Intercept = () => false;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((request, response) => this.#answer(request, response));

  static async start(): Promise<FakeRegistry> {
    const registry = new FakeRegistry();
    registry.#server.on("connection", (socket) => {
      registry.#sockets.add(socket);
      socket.on("close", () => registry.#sockets.delete(socket));
    });
    registry.#server.listen(0, "127.0.0.1");
    await once(registry.#server, "listening");
    return registry;
  }

  get domain(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async dispose(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }

  addBlob(bytes: Buffer, mediaType = "application/vnd.oci.image.layer.v1.tar"): Descriptor {
    const digest = sha256(bytes);
    this.blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  }

  addManifest(tag: string, document: object, type = OCI_MANIFEST): Descriptor {
    const bytes = Buffer.from(JSON.stringify(document));
    const digest = sha256(bytes);
    this.manifests.set(tag, { type, bytes });
    this.manifests.set(digest, { type, bytes });
    return { mediaType: type, digest, size: bytes.length };
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const range = request.headers.range === undefined ? "" : ` ${request.headers.range}`;
    const url = new URL(request.url ?? "/", "http://registry");
    this.requests.push(`${request.method} ${url.pathname}${range}`);
    request.resume();
    if (!this.intercept(request, response)) this.serve(request, response);
  }

  /** Answers as a registry should: what an intercept calls when it has waited long enough. */
  serve(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", "http://registry");
    const [, kind, name = ""] = /\/(manifests|blobs)\/([^/]+)$/.exec(url.pathname) ?? [];
    if (kind === "manifests") this.#sendManifest(name, request, response);
    else if (kind === "blobs") this.#sendBlob(name, request, response);
    else response.writeHead(url.pathname === "/v2/" ? 200 : 404).end();
  }

  #sendManifest(name: string, request: IncomingMessage, response: ServerResponse): void {
    const manifest = this.manifests.get(name);
    if (manifest === undefined) {
      response.writeHead(404).end();
      return;
    }
    const { type, bytes } = manifest;
    const headers = { "content-type": type, "docker-content-digest": sha256(bytes) };
    response.writeHead(200, { ...headers, "content-length": bytes.length });
    response.end(request.method === "HEAD" ? undefined : bytes);
  }

  #sendBlob(name: string, request: IncomingMessage, response: ServerResponse): void {
    const bytes = this.blobs.get(name);
    if (bytes === undefined) {
      response.writeHead(404).end();
      return;
    }
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const start = Number(from ?? 0);
    const last = to ? Math.min(Number(to), bytes.length - 1) : bytes.length - 1;
    const rest = bytes.subarray(start, last + 1);
    const range = { "content-range": `bytes ${start}-${last}/${bytes.length}` };
    response.writeHead(from === undefined ? 200 : 206, {
      "content-length": rest.length,
      ...(from === undefined ? {} : range),
    });
    response.end(rest);
  }
}

/** Sends the first `count` bytes of a body of `bytes`, then breaks the connection. */
export function breakAfter(response: ServerResponse, bytes: Buffer, count: number): void {
  response.writeHead(200, { "content-length": bytes.length });
  response.write(bytes.subarray(0, count), () => response.socket?.destroy());
}
