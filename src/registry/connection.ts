/** Requests to one host: authorization, redirects, and the errors they end in. */

import type { Readable } from "node:stream";
import { request as send } from "undici";
import { UnavailableError } from "../system/errors.js";
import type { RegistryAccess } from "./access.js";
import { Authorizer, type PlainRequest } from "./authorizer.js";
import { findCredentials } from "./credentials.js";
import { answerFailure, isNoTls, requestFailure, TransientError } from "./failures.js";
import type { RegistryHost } from "./hosts.js";
import { MAX_ANSWER_BYTES, MAX_REDIRECTS } from "./limits.js";
import type { Transport } from "./transport.js";

/** A request below the host's API. */
export interface HostRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** "/library/busybox/manifests/latest", or a whole address that the host gave. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | Readable;
  readonly scopes: readonly string[];
  readonly signal?: AbortSignal | undefined;
  /** Names the operation in errors. */
  readonly what: string;
  /** Statuses that are no failures. */
  readonly accept: readonly number[];
}

/** An answer; its body must be read or dumped. */
export interface HostAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Readable & { dump(): Promise<void>; text(): Promise<string> };
  /** Where it came from, after redirects. */
  readonly url: string;
}

const USER_AGENT = "varve";
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** The first is without a token, the second with one, the third with a new one. */
const MAX_CHALLENGES = 3;

/** A host, as one caller may use it. */
export class Connection {
  readonly host: RegistryHost;
  readonly #transport: Transport;
  readonly #access: RegistryAccess;
  readonly #authorizer: Authorizer;
  #api: Promise<string> | undefined;
  #foundApi: string;

  constructor(o: {
    host: RegistryHost;
    transport: Transport;
    access: RegistryAccess;
    wantsIdentity?: boolean;
  }) {
    this.host = o.host;
    this.#transport = o.transport;
    this.#access = o.access;
    this.#foundApi = o.host.api;
    const { domain, path, isMirror } = o.host;
    this.#authorizer = new Authorizer({
      send: this.#plain,
      // A mirror has its own; the caller's are for the registry that was named.
      credentials: () =>
        findCredentials(
          { domain, path },
          isMirror ? { ...o.access, credentials: undefined } : o.access,
        ),
      origin: () => new URL(this.#foundApi).origin,
      ...(o.wantsIdentity === undefined ? {} : { wantsIdentity: o.wantsIdentity }),
    });
  }

  /** "repository:library/busybox:pull", as the repository is called here. */
  scopes(actions: "pull" | "pull,push"): readonly string[] {
    return [`repository:${this.host.path}:${actions}`];
  }

  /** Sends a request and answers challenges; see `HostRequest.accept`. */
  async send(request: HostRequest): Promise<HostAnswer> {
    const { what, signal } = request;
    try {
      for (let challenges = 0; ; challenges++) {
        const authorization = await this.#authorizer.header(request.scopes);
        const answer = await this.#follow(request, authorization);
        if (request.accept.includes(answer.status)) return answer;
        const isFinal = answer.status !== 401 || challenges >= MAX_CHALLENGES - 1;
        const header = answer.headers["www-authenticate"];
        if (isFinal || !this.#authorizer.challenged(header, request.scopes, authorization)) {
          throw answerFailure({ ...answer, body: await readText(answer.body) }, what);
        }
        await answer.body.dump();
        if (request.body === undefined || request.body instanceof Uint8Array) continue;
        // A stream is spent; the caller asks for the upload's state and sends a new one.
        throw new TransientError(`${what}: the token had expired`, { retryAfterMs: 0 });
      }
    } catch (error) {
      throw requestFailure(error, what, signal);
    }
  }

  /** What a login may keep in the password's stead. */
  identityToken(scopes: readonly string[]): Promise<string | undefined> {
    return this.#authorizer.identityToken(scopes);
  }

  async #follow(request: HostRequest, authorization: string | undefined): Promise<HostAnswer> {
    const api = await this.#resolveApi(request.signal);
    let url = this.#address(api, request.path);
    const { origin } = new URL(api);
    for (let redirects = 0; ; redirects++) {
      // Only the host itself gets the credentials, and the headers that were configured for it.
      const isHost = url.origin === origin;
      const headers = {
        "user-agent": USER_AGENT,
        ...(isHost ? this.host.headers : {}),
        ...request.headers,
        ...(isHost && authorization !== undefined ? { authorization } : {}),
      };
      const answer = await this.#request(url, { ...request, headers });
      const { location } = answer.headers;
      const isRedirect = REDIRECTS.has(answer.status) && typeof location === "string";
      if (!isRedirect || (request.method !== "GET" && request.method !== "HEAD")) {
        return { ...answer, url: url.href };
      }
      await answer.body.dump();
      if (redirects >= MAX_REDIRECTS) {
        throw new UnavailableError(
          `${request.what}: redirected in a circle, at last to ${url.href}`,
        );
      }
      url = this.#redirected(location, url, request.what);
    }
  }

  #redirected(location: string, from: URL, what: string): URL {
    const target = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
    if (target !== undefined && /^https?:$/.test(target.protocol)) return target;
    throw new UnavailableError(`${what}: redirected to ${JSON.stringify(location)}`);
  }

  #address(api: string, path: string): URL {
    if (/^https?:\/\//.test(path)) return new URL(path);
    const url = new URL(`${api}${path}`);
    if (this.host.namespace !== undefined) url.searchParams.set("ns", this.host.namespace);
    return url;
  }

  async #request(
    url: URL,
    o: {
      method: HostRequest["method"];
      headers: Record<string, string | string[]>;
      body?: Uint8Array | Readable;
      signal?: AbortSignal | undefined;
    },
  ): Promise<Omit<HostAnswer, "url">> {
    const scheme = url.protocol === "http:" ? "http" : "https";
    const answer = await send(url, {
      method: o.method,
      headers: o.headers,
      dispatcher: this.#transport.dispatcher(this.host, this.#access.environment, scheme),
      ...(o.body === undefined ? {} : { body: o.body }),
      ...(o.signal === undefined ? {} : { signal: o.signal }),
    });
    // A body that is given up before anybody reads it fails, too; its reader would say so.
    answer.body.on("error", () => undefined);
    return { status: answer.statusCode, headers: answer.headers, body: answer.body };
  }

  readonly #plain: PlainRequest = async ({ method, url, headers, body }) => {
    const answer = await this.#request(new URL(url), {
      method,
      headers: { "user-agent": USER_AGENT, ...headers },
      ...(body === undefined ? {} : { body: Buffer.from(body) }),
    });
    return { ...answer, body: await readText(answer.body) };
  };

  /** Finds out once whether a host without a known scheme speaks https or http. */
  #resolveApi(signal: AbortSignal | undefined): Promise<string> {
    const { api, schemeIsOpen } = this.host;
    if (!schemeIsOpen) return Promise.resolve(api);
    this.#api ??= this.#probe(signal).catch((error: unknown) => {
      this.#api = undefined;
      throw error;
    });
    return this.#api;
  }

  async #probe(signal: AbortSignal | undefined): Promise<string> {
    const { api } = this.host;
    try {
      const answer = await this.#request(new URL(`${api}/`), {
        method: "GET",
        headers: {},
        signal,
      });
      await answer.body.dump();
      return api;
    } catch (error) {
      if (!isNoTls(error)) throw error;
      this.#foundApi = api.replace(/^https:/, "http:");
      return this.#foundApi;
    }
  }
}

/** A short answer as text; what is longer than an answer can be is cut. */
export async function readText(body: Readable): Promise<string> {
  return (await readBounded(body, MAX_ANSWER_BYTES)).toString("utf8");
}

/** The first `limit` bytes of a body; the rest is not waited for. */
export async function readBounded(body: Readable, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size >= limit) break;
  }
  return Buffer.concat(chunks).subarray(0, limit);
}
