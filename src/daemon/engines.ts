/** The sockets for those who run containers: a containerd, and a kubelet. */

import { ContainerdClient } from "../services/containerd/containerd-client.js";
import { ImagePublisher } from "../services/containerd/image-publisher.js";
import type { Core } from "../services/core.js";
import { HealthServer } from "../services/health-server.js";
import type { ListeningSocket } from "../services/listening-socket.js";
import { collectMetrics } from "../services/metrics/collect-metrics.js";
import { MetricsServer } from "../services/metrics/metrics-server.js";
import { containerdApi, criApi, RpcServer, type ServedApi } from "../services/server.js";
import { type DaemonConfig, layerLimits } from "./config.js";
import type { Mounts, OnCleanup } from "./mounts.js";

/** What the sockets of engines need. */
interface EngineParts {
  readonly config: DaemonConfig;
  readonly core: Core;
  readonly mounts: Mounts;
}

/** Answers on the sockets that are configured. */
export function serveEngines(engines: EngineParts, onCleanup: OnCleanup): RpcServer[] {
  const { core, mounts } = engines;
  const { sockets, containerd: snapshots } = mounts;
  const differ = callContainerd(engines, onCleanup);
  const publisher = differ && new ImagePublisher(differ);
  const servers: RpcServer[] = [];
  const serve = (socket: ListeningSocket, api: ServedApi) => {
    const server = new RpcServer(socket, api);
    onCleanup(() => server.close());
    servers.push(server);
  };
  if (sockets.containerd !== undefined && snapshots !== undefined) {
    serve(sockets.containerd, containerdApi({ snapshots, differ, log: core.log }));
  }
  if (sockets.kubelet !== undefined) serve(sockets.kubelet, criApi({ core, publisher }));
  return servers;
}

/** Health checks from outside, if configured. Answers from now on. @throws UnavailableError */
export async function answerHealthChecks(
  { healthAddress }: DaemonConfig,
  { log }: Core,
  servers: readonly RpcServer[],
  onCleanup: OnCleanup,
): Promise<void> {
  if (healthAddress === undefined) return;
  const services = servers.flatMap((server) => server.services);
  const health = await HealthServer.listen(healthAddress, services, log);
  onCleanup(() => health.close());
}

/** What calls containerd; undefined when nobody said where it is. */
function callContainerd({ config, core, mounts }: EngineParts, onCleanup: OnCleanup) {
  const { containerd: snapshots } = mounts;
  if (snapshots === undefined || config.containerdAddress === undefined) return undefined;
  const containerd = new ContainerdClient(config.containerdAddress);
  onCleanup(() => containerd.close());
  const { tasks, content, images } = core;
  return { containerd, snapshots, tasks, content, images, limits: layerLimits(config) };
}

/** Metrics for those who know no Unix sockets, if configured. @throws UnavailableError */
export async function serveMetrics(
  { metricsAddress }: DaemonConfig,
  core: Core,
  onCleanup: OnCleanup,
): Promise<void> {
  if (metricsAddress === undefined) return;
  const server = await MetricsServer.listen(metricsAddress, () => collectMetrics(core));
  onCleanup(() => server.close());
}

/** Collects garbage after a call; many calls in a row cause one collection. */
export function collector({ garbage, log }: Core): () => void {
  let isWaiting = false;
  return () => {
    if (isWaiting) return;
    isWaiting = true;
    setImmediate(() => {
      isWaiting = false;
      garbage.run().catch((error: unknown) => log.warn("garbage collection failed", error));
    });
  };
}
