/** Metrics for a Prometheus that cannot reach Unix sockets: GET /metrics on a TCP port, and nothing else. */

import http from "node:http";
import { UnavailableError } from "../../system/errors.js";

/** Clients that are slower than this, or silent, are dropped. */
const TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 16;
const MAX_HEADER_BYTES = 8 * 1024;

/** A listening server. */
export class MetricsServer {
  readonly #server: http.Server;

  private constructor(collect: () => string) {
    this.#server = http.createServer(
      { maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: TIMEOUT_MS, headersTimeout: TIMEOUT_MS },
      (request, response) => {
        if (request.method !== "GET" || request.url !== "/metrics") {
          response.writeHead(404).end();
          return;
        }
        response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
        response.end(collect());
      },
    );
    this.#server.maxConnections = MAX_CONNECTIONS;
    this.#server.setTimeout(TIMEOUT_MS);
  }

  /**
   * Listens on "HOST:PORT".
   *
   * @throws UnavailableError the address cannot be had
   */
  static async listen(address: string, collect: () => string): Promise<MetricsServer> {
    const server = new MetricsServer(collect);
    const colon = address.lastIndexOf(":");
    const host = address.slice(0, colon).replace(/^\[|\]$/g, "");
    await new Promise<void>((resolve, reject) => {
      server.#server.once("error", (error) => {
        const message = `serve metrics on ${address}: ${error.message}; choose another --metrics-address`;
        reject(new UnavailableError(message, { cause: error }));
      });
      server.#server.listen(Number(address.slice(colon + 1)), host, resolve);
    });
    return server;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
