/** Connections: one pool per set of certificates and proxies, shared by all that use the same. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { Agent, type Dispatcher, EnvHttpProxyAgent } from "undici";
import { InvalidArgumentError } from "../system/errors.js";
import type { Environment } from "./access.js";
import type { RegistryHost, TlsSettings } from "./hosts.js";

const CONNECT_TIMEOUT_MS = 15_000;
const HEADERS_TIMEOUT_MS = 30_000;
const BODY_TIMEOUT_MS = 30_000;
/** Settings change seldom; the oldest pool goes when more than this many are in use. */
const MAX_POOLS = 16;

// As Go's net/http: this machine is never reached through a proxy.
const NEVER_PROXIED = ["localhost", "127.0.0.1", "[::1]", "::1"];

/** Pools of connections. Close it when the daemon ends. */
export class Transport {
  readonly #pools = new Map<string, Dispatcher>();

  /** The pool for these certificates and the proxy that this environment has for `scheme`. */
  dispatcher(
    { tls, dialTimeoutMs = CONNECT_TIMEOUT_MS }: Pick<RegistryHost, "tls" | "dialTimeoutMs">,
    environment: Environment,
    scheme: "http" | "https",
  ): Dispatcher {
    const ca = [...tls.ca, ...systemAuthorities(environment)];
    const proxy = proxyOf(environment, scheme);
    const text = JSON.stringify([ca, tls.clients, tls.skipVerify, proxy, scheme, dialTimeoutMs]);
    const key = createHash("sha256").update(text).digest("hex");
    const known = this.#pools.get(key);
    if (known !== undefined) {
      // The most recently used one is last.
      this.#pools.delete(key);
      this.#pools.set(key, known);
      return known;
    }
    const pool = makePool(tls, ca, proxy, dialTimeoutMs);
    this.#pools.set(key, pool);
    this.#forgetOldest();
    return pool;
  }

  #forgetOldest(): void {
    if (this.#pools.size <= MAX_POOLS) return;
    const [key, pool] = this.#pools.entries().next().value!;
    this.#pools.delete(key);
    // Requests under way may end.
    pool.close().catch(() => undefined);
  }

  /** Breaks every connection. */
  async close(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.allSettled(pools.map((pool) => pool.destroy()));
  }
}

interface Proxy {
  readonly address: string;
  /** Hosts that are reached without it, as in NO_PROXY. */
  readonly except: string;
  /** A proxy passes plain http on by itself; many refuse tunnels to other ports than 443. */
  readonly isTunnel: boolean;
}

function proxyOf(environment: Environment, scheme: "http" | "https"): Proxy | undefined {
  const lookUp = (name: string) => environment[name.toLowerCase()] || environment[name] || "";
  const address = lookUp(scheme === "https" ? "HTTPS_PROXY" : "HTTP_PROXY") || lookUp("ALL_PROXY");
  if (address === "") return undefined;
  if (!URL.canParse(address) || !/^https?:/.test(address)) {
    throw new InvalidArgumentError(
      `proxy ${JSON.stringify(address)}: must be an http:// or https:// address`,
    );
  }
  const except = [lookUp("NO_PROXY"), ...NEVER_PROXIED].filter((one) => one !== "").join(",");
  return { address, except, isTunnel: scheme === "https" };
}

function makePool(
  tls: TlsSettings,
  ca: readonly string[],
  proxy: Proxy | undefined,
  dialTimeoutMs: number,
): Dispatcher {
  const client = tls.clients[0];
  const security = {
    rejectUnauthorized: !tls.skipVerify,
    timeout: dialTimeoutMs,
    // Naming any CA makes Node forget its own list.
    ...(ca.length === 0 ? {} : { ca: [...rootCertificates, ...ca] }),
    ...(client === undefined ? {} : { cert: client.cert, key: client.key }),
  };
  const options = {
    connect: security,
    headersTimeout: HEADERS_TIMEOUT_MS,
    bodyTimeout: BODY_TIMEOUT_MS,
  };
  if (proxy === undefined) return new Agent(options);
  return new EnvHttpProxyAgent({
    ...options,
    httpProxy: proxy.address,
    httpsProxy: proxy.address,
    noProxy: proxy.except,
    proxyTunnel: proxy.isTunnel,
    requestTls: security,
  });
}

/** SSL_CERT_FILE, as OpenSSL and Go read it. */
function systemAuthorities(environment: Environment): string[] {
  const file = environment.SSL_CERT_FILE ?? "";
  if (file === "") return [];
  try {
    return [readFileSync(file, "utf8")];
  } catch (error) {
    throw new InvalidArgumentError(
      `SSL_CERT_FILE: cannot read ${file}: ${(error as Error).message}`,
    );
  }
}
