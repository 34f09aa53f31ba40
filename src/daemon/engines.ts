/** The sockets for those who run containers: a containerd, and a kubelet. */

import type { Digest } from "../content/digest.js";
import { ContainerdClient } from "../services/containerd/containerd-client.js";
import { ImagePublisher } from "../services/containerd/image-publisher.js";
import type { Core } from "../services/core.js";
import { HealthServer } from "../services/health-server.js";
import { collectMetrics } from "../services/metrics/collect-metrics.js";
import { MetricsServer } from "../services/metrics/metrics-server.js";
import { containerdApi, criApi, RpcServer } from "../services/server.js";
import { FailedPreconditionError } from "../system/errors.js";
import { ProxySnapshots } from "../views/proxy-snapshots.js";
import type { SessionKeeper } from "../views/session-keeper.js";
import { type DaemonConfig, layerLimits } from "./config.js";

/** What serves them; what is not configured is undefined. */
export interface Engines {
  readonly containerd:
    | { readonly snapshots: ProxySnapshots; readonly server: RpcServer }
    | undefined;
  readonly kubelet: RpcServer | undefined;
}

/** How the daemon will end. */
export interface End {
  /** Mounts stay in place, for the next daemon. */
  keepMounts: boolean;
}

/** What the sockets of engines need. */
interface EngineParts {
  readonly config: DaemonConfig;
  readonly core: Core;
  readonly keeper: SessionKeeper | undefined;
  readonly end: End;
}

type OnCleanup = (cleanup: () => Promise<void> | void) => void;

/**
 * Listens where the configuration says; nobody is answered yet.
 *
 * @throws FailedPreconditionError containerd is to be served without the rights for that
 * @throws AlreadyExistsError, InvalidArgumentError as `RpcServer.listen`
 */
export async function listenForEngines(
  engines: EngineParts,
  onCleanup: OnCleanup,
): Promise<Engines> {
  const { config, core } = engines;
  const snapshots = openSnapshots(engines, onCleanup);
  const calls = snapshots && callContainerd(config, core, snapshots, onCleanup);
  const listen = async (api: Parameters<typeof RpcServer.listen>[0]) => {
    const server = await RpcServer.listen(api);
    onCleanup(() => server.close());
    return server;
  };
  const { containerdSocket, criSocket } = config;
  const parts = snapshots && { snapshots, differ: calls, log: core.log };
  const server =
    parts && containerdSocket !== undefined
      ? await listen(containerdApi(containerdSocket, parts))
      : undefined;
  const publisher = calls && new ImagePublisher(calls);
  const kubelet =
    criSocket === undefined ? undefined : await listen(criApi(criSocket, { core, publisher }));
  return { containerd: snapshots && server && { snapshots, server }, kubelet };
}

/** Health checks from outside, if configured. Answers from now on. @throws UnavailableError */
export async function answerHealthChecks(
  { healthAddress }: DaemonConfig,
  { log }: Core,
  servers: readonly (RpcServer | undefined)[],
  onCleanup: OnCleanup,
): Promise<void> {
  if (healthAddress === undefined) return;
  const services = servers.flatMap((server) => server?.services ?? []);
  const health = await HealthServer.listen(healthAddress, services, log);
  onCleanup(() => health.close());
}

function openSnapshots({ config, core, keeper, end }: EngineParts, onCleanup: OnCleanup) {
  const { root, state, containerdSocket, containerdMounts: form } = config;
  const { fuseWorkers: workers, quickWakeUps, io } = config;
  if (containerdSocket === undefined) return undefined;
  if (!core.machine.privileged) {
    throw new FailedPreconditionError(
      "serve containerd: this needs root (CAP_SYS_ADMIN in the initial user namespace)",
    );
  }
  const { database, tasks, log } = core;
  const places = { root, state, database, tasks, log };
  const sharing = {
    onUnshared: collector(core),
    settle: () => core.snapshots.settle(),
    readyIndex: (chainId: Digest) => core.snapshots.readyIndex(chainId),
  };
  const serving = { workers, quickWakeUps, io, keeper, tallies: core.tallies };
  const snapshots = new ProxySnapshots({ ...places, ...serving, form, sharing });
  onCleanup(() => snapshots.close(end));
  return snapshots;
}

/** What calls containerd; undefined when nobody said where it is. */
function callContainerd(
  config: DaemonConfig,
  core: Core,
  snapshots: ProxySnapshots,
  onCleanup: OnCleanup,
) {
  if (config.containerdAddress === undefined) return undefined;
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
function collector({ garbage, log }: Core): () => void {
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
