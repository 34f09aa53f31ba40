/**
 * The page's server: on the loopback interface, behind a token in the path, for reading only. Whoever does not
 * know the token gets 404 for everything; a page of another origin cannot read answers, nor can a name of its
 * own that resolves to this machine be used, since the Host header must name the loopback interface.
 */

import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { type BaseError, FailedPreconditionError } from "../system/errors.js";
import type { ExploreApi } from "./api.js";

/** The page's files: made by scripts/bundle.mjs, found from src/explore and dist/explore alike. */
const PAGE = new URL("../../dist/explore/page/", import.meta.url);
const FILES: Readonly<Record<string, string>> = {
  "": "index.html",
  "app.js": "app.js",
  "app.css": "app.css",
};
const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
};
const HEADERS = {
  "cache-control": "no-store",
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};
const STATUS_OF_CODE: Readonly<Record<string, number>> = {
  NOT_FOUND: 404,
  INVALID_ARGUMENT: 400,
  UNAVAILABLE: 503,
};

/** A running server. */
export interface ExploreServer {
  /** What to open in a browser. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Starts serving.
 *
 * @param port 0 for any that is free
 * @throws FailedPreconditionError the port is taken
 */
export async function serveExplorer(api: ExploreApi, port: number): Promise<ExploreServer> {
  const token = randomBytes(18).toString("base64url");
  const server = http.createServer((request, response) => {
    void handle(request, api, token).then(({ status, type, body }) => {
      response.writeHead(status, { ...HEADERS, "content-type": type }).end(body);
    });
  });
  await listen(server, port);
  const address = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${address.port}/${token}/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: http.Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const reason = error.code === "EADDRINUSE" ? "it is taken" : error.message;
      const message = `explore: listen on port ${port}: ${reason}`;
      reject(new FailedPreconditionError(message, { cause: error }));
    });
    server.listen(port, "127.0.0.1", resolve);
  });
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string | Buffer;
}

function plain(status: number, text: string): Answer {
  return { status, type: "text/plain; charset=utf-8", body: `${text}\n` };
}

async function handle(
  request: http.IncomingMessage,
  api: ExploreApi,
  token: string,
): Promise<Answer> {
  const url = new URL(request.url ?? "/", "http://127.0.0.1");
  const [, given = "", ...rest] = url.pathname.split("/");
  if (!isLoopback(request.headers.host) || !isEqual(given, token)) return plain(404, "not found");
  if (request.method !== "GET") return plain(405, "this page is for reading only");
  const file = rest.join("/");
  try {
    if (rest[0] === "api") return json(await api.answer(rest.slice(1).join("/"), url.searchParams));
    const name = FILES[file];
    if (name === undefined) return plain(404, "not found");
    const type = TYPES[name.split(".").at(-1)!]!;
    return { status: 200, type, body: await readFile(fileURLToPath(new URL(name, PAGE))) };
  } catch (error) {
    const status = STATUS_OF_CODE[(error as BaseError).code] ?? 500;
    return plain(status, (error as Error).message);
  }
}

function json(value: unknown): Answer {
  return { status: 200, type: "application/json", body: JSON.stringify(value) };
}

function isLoopback(host: string | undefined): boolean {
  return /^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(host ?? "");
}

/** In a time that tells nothing about where they differ. */
function isEqual(given: string, token: string): boolean {
  const hash = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(hash(given), hash(token));
}
