/** The daemon's own methods of varve.v1: version, info, shutdown. */

import os from "node:os";
import { ownersOnly } from "./caller.js";
import type { Core } from "./core.js";
import type { Varve } from "./gen/varve/v1/varve_pb.js";
import type { Handlers } from "./grpc-adapter.js";
import { collectMetrics } from "./metrics/collect-metrics.js";

/** Name of the API that this daemon serves. */
export const API_VERSION = "varve.v1";

// Go's names, as in image platforms.
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", arm: "arm", ia32: "386" };

/** Handlers of the daemon's methods. */
export function daemonHandlers(
  core: Core,
): Pick<Handlers<typeof Varve>, "version" | "info" | "shutdown" | "metrics"> {
  return {
    version: () => ({
      version: core.machine.version,
      apiVersion: API_VERSION,
      nodeVersion: process.versions.node,
    }),
    info: () => info(core),
    metrics: () => ({ text: collectMetrics(core) }),
    shutdown: (_request, { caller }) => {
      ownersOnly(caller, "stop the daemon", "ask its administrator");
      core.requestShutdown();
      return {};
    },
  };
}

async function info(core: Core) {
  const { machine, paths, views, database } = core;
  const all = views.list();
  return {
    version: machine.version,
    pid: BigInt(process.pid),
    root: paths.root,
    state: paths.state,
    socket: paths.socket,
    kernelVersion: os.release(),
    fuseProtocol: machine.fuseProtocol,
    platform: `linux/${ARCHITECTURES[process.arch] ?? process.arch}`,
    decompressor: machine.decompressor,
    rootless: !machine.privileged,
    images: BigInt((await core.images.list()).length),
    snapshots: BigInt(core.snapshots.list().length),
    views: BigInt(all.length),
    mountedViews: BigInt(all.filter((view) => views.isMounted(view)).length),
    contentBytes: BigInt(database.blobs.totalBytes()),
    storageFilesystem: machine.storageFilesystem,
    fallbacks: [...machine.fallbacks],
  };
}
