/** Health checks over TCP, as a kubelet's probes make them. */

import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../../src/services/gen/grpc/health/v1/health_pb.js";
import { ImageService } from "../../../src/services/gen/runtime/v1/image_pb.js";
import { Status } from "../../../src/services/status.js";
import { freePort } from "../registry/registry-process.js";
import { DaemonSandbox, isAlive } from "./daemon-process.js";

let daemon: DaemonSandbox;
let address: string;
let client: Client;

beforeEach(async () => {
  daemon = new DaemonSandbox();
  address = `127.0.0.1:${await freePort()}`;
  client = new Client(address, credentials.createInsecure());
});

afterEach(async () => {
  client.close();
  await daemon.dispose();
});

/** The status that a server has of a service, or the one that the call fails with. */
function check(service: string, method = "/grpc.health.v1.Health/Check"): Promise<number> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      method,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => fromBinary(HealthCheckResponseSchema, bytes),
      Buffer.from(
        toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service })),
      ),
      (error: ServiceError | null, answer) => resolve(error?.code ?? answer!.status),
    );
  });
}

describe("--health-address", () => {
  it("answers for what is served, and nothing else can be asked there", async () => {
    const cri = ["--cri-socket", daemon.path("cri.sock")];
    await daemon.start("--health-address", address, ...cri);
    expect(await check("")).toBe(ServingStatus.SERVING);
    expect(await check(ImageService.typeName)).toBe(ServingStatus.SERVING);
    expect(await check("varve.v1.Varve")).toBe(ServingStatus.SERVING);
    expect(await check("containerd.services.snapshots.v1.Snapshots")).toBe(Status.NOT_FOUND);
    expect(await check("", "/varve.v1.Varve/Shutdown")).toBe(Status.UNIMPLEMENTED);
    expect(await daemon.end()).toBe(0);
    expect(await check("")).toBe(Status.UNAVAILABLE);
  });

  it("that is taken ends the daemon with that reason", async () => {
    await daemon.start("--health-address", address);
    const other = new DaemonSandbox();
    try {
      await other.tryStart("--health-address", address);
      while (isAlive(other.pid)) await sleep(20);
      expect(other.log).toContain(`answer health checks on ${address}`);
    } finally {
      await other.dispose();
    }
  });
});
