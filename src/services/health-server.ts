/**
 * gRPC's health service on a TCP port, and nothing else: probes from outside (a kubelet's "grpc" probe
 * knows no Unix sockets) can ask whether the daemon works, not make it do anything.
 */

import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { Log } from "../snapshots/log.js";
import { UnavailableError } from "../system/errors.js";
import { Health } from "./gen/grpc/health/v1/health_pb.js";
import { addService } from "./grpc-adapter.js";
import { healthHandlers } from "./health-service.js";

/** A listening server. */
export class HealthServer {
  readonly #grpc = new Server({ "grpc.enable_channelz": 0 });
  readonly #ending = new AbortController();

  private constructor(services: readonly string[], log: Log) {
    const logBug = (error: unknown) =>
      log.warn("a health check failed in an unforeseen way", error);
    addService(this.#grpc, Health, healthHandlers(services, this.#ending.signal), { logBug });
  }

  /**
   * Listens on `address` ("127.0.0.1:7878", "[::]:7878") and answers at once: call it when the rest is ready.
   *
   * @param services full names of what the daemon serves elsewhere
   * @throws UnavailableError the address cannot be had
   */
  static async listen(
    address: string,
    services: readonly string[],
    log: Log,
  ): Promise<HealthServer> {
    const server = new HealthServer(services, log);
    await new Promise<void>((resolve, reject) => {
      server.#grpc.bindAsync(address, ServerCredentials.createInsecure(), (error) => {
        if (error === null) return resolve();
        const message = `answer health checks on ${address}: ${error.message}; choose another --health-address`;
        reject(new UnavailableError(message, { cause: error }));
      });
    });
    return server;
  }

  /** Says that the daemon ends, to those who watch, and ends. */
  close(): void {
    this.#ending.abort();
    this.#grpc.forceShutdown();
  }
}
