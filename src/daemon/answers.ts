/** What answers calls: the part of a daemon that is loaded when the mounted views are served already. */

import fs from "node:fs/promises";
import path from "node:path";
import { ContentStore } from "../content/content-store.js";
import { DiskReserve } from "../content/disk-full.js";
import { AutomaticCollection } from "../images/automatic-collection.js";
import { GarbageCollector } from "../images/garbage-collector.js";
import { ImageStore } from "../images/image-store.js";
import type { ViewRow } from "../metadata/view-table.js";
import { Registries } from "../registry/registries.js";
import { sweepRuns } from "../services/builds/run-in-view.js";
import type { Core } from "../services/core.js";
import { Activity } from "../services/metrics/activity.js";
import { RpcServer, varveApi } from "../services/server.js";
import { remountView } from "../services/use-cases/mount-view.js";
import { Unpacker } from "../snapshots/unpacker.js";
import { type DaemonConfig, layerLimits } from "./config.js";
import { answerHealthChecks, collector, serveEngines, serveMetrics } from "./engines.js";
import { FreedMemory } from "./freed-memory.js";
import { examineMachine } from "./machine.js";
import type { Mounts, OnCleanup, StartOptions } from "./mounts.js";

/** Percent of the disk to free when only `gc.high` is configured; a kubelet's default. */
const LOW_BELOW_HIGH = 5;

/**
 * Opens the stores, settles what the last daemon left, and answers calls from when this resolves.
 *
 * @throws UnavailableError an address to listen on cannot be had
 */
export async function answerCalls(
  o: StartOptions,
  mounts: Mounts,
  onCleanup: OnCleanup,
): Promise<Core> {
  const { config, log } = o;
  const { containerd, keeper, sockets, views, ...shared } = mounts;
  const { collection, ...stores } = await openStores(o, mounts, onCleanup);
  const core: Core = {
    paths: { root: config.root, state: config.state, socket: config.socket },
    machine: await examineMachine(config.root),
    ...{ ...shared, ...stores, views, log, starts: await countStart(config.state) },
    requestShutdown: o.onShutdownRequest,
  };
  await sweepRuns(config.state);
  const remount = (view: ViewRow) => remountView(core, view);
  await views.open({ restore: config.restoreViews, remount });
  collection.start();
  onCleanup(() => collection.stop());
  const memory = new FreedMemory();
  memory.start();
  onCleanup(() => memory.stop());
  await containerd?.open({ onUnshared: collector(core) });
  keeper?.releaseLeft();
  await serveMetrics(config, core, onCleanup);
  const server = new RpcServer(sockets.own, varveApi(core));
  onCleanup(() => server.close());
  const engines = serveEngines({ config, core, mounts }, onCleanup);
  await answerHealthChecks(config, core, [server, ...engines], onCleanup);
  return core;
}

async function openStores(
  { config, log }: StartOptions,
  { database, events, privileged, snapshots, tasks }: Mounts,
  onCleanup: OnCleanup,
) {
  const makeRoom = () => collection.makeRoom();
  const content = new ContentStore(config.root, database, makeRoom);
  const recovery = await content.open();
  for (const digest of recovery.missing) log.warn(`blob ${digest} was lost; load its image again`);
  await snapshots.open();
  const limits = layerLimits(config);
  const places = { snapshots, blobs: content, tasks };
  const unpacker = new Unpacker({ ...places, privileged, limits, makeRoom });
  onCleanup(() => unpacker.settle());
  const garbage = new GarbageCollector({
    database,
    content,
    discardSnapshots: (names) => snapshots.discard(names),
    busySnapshots: () => unpacker.busy(),
  });
  // What crashed work had leased is nobody's now.
  if (database.leases.deleteTransient() > 0) await garbage.run();
  const images = new ImageStore({ database, content, events });
  const collection = makeCollection(config, { images, garbage, events, log });
  const registries = new Registries({ database, content });
  onCleanup(() => registries.close());
  const activity = new Activity(events);
  return { content, unpacker, garbage, images, collection, registries, activity };
}

type CollectionStores = Pick<Core, "images" | "garbage" | "events" | "log">;

function makeCollection(config: DaemonConfig, stores: CollectionStores): AutomaticCollection {
  const { root, gcHigh: high, gcLow } = config;
  const low = gcLow ?? (high === undefined ? undefined : Math.max(1, high - LOW_BELOW_HIGH));
  const reserve = new DiskReserve(root);
  reserve.hold();
  return new AutomaticCollection({
    ...{ ...stores, reserve },
    thresholds: high === undefined || low === undefined ? undefined : { high, low },
    usedPercent: () => usedPercent(root),
  });
}

/** As df counts: of what ordinary users can fill. */
async function usedPercent(directory: string): Promise<number> {
  const { blocks, bfree, bavail } = await fs.statfs(directory);
  const used = blocks - bfree;
  return used + bavail === 0 ? 0 : (100 * used) / (used + bavail);
}

/** Counts in a file how often a daemon was started here; it goes with the machine's boot. */
async function countStart(state: string): Promise<number> {
  const file = path.join(state, "starts");
  const before = Number(await fs.readFile(file, "latin1").catch(() => "0"));
  const starts = Number.isSafeInteger(before) ? before + 1 : 1;
  await fs.writeFile(file, `${starts}\n`, { mode: 0o600 });
  return starts;
}
