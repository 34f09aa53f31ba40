/** The composition root: makes the parts in order, and takes them down in the opposite order. */

import fs from "node:fs/promises";
import path from "node:path";
import { ContentStore } from "../content/content-store.js";
import { DiskReserve } from "../content/disk-full.js";
import { AutomaticCollection } from "../images/automatic-collection.js";
import { GarbageCollector } from "../images/garbage-collector.js";
import { ImageStore } from "../images/image-store.js";
import { type Database, openDatabase } from "../metadata/database.js";
import { EventLog } from "../metadata/event-log.js";
import type { ViewRow } from "../metadata/view-table.js";
import { Registries } from "../registry/registries.js";
import { sweepRuns } from "../services/builds/run-in-view.js";
import type { Core, Machine } from "../services/core.js";
import { Activity } from "../services/metrics/activity.js";
import { RpcServer, varveApi } from "../services/server.js";
import { remountView } from "../services/use-cases/mount-view.js";
import { LayerTasks } from "../snapshots/layer-tasks.js";
import type { Log } from "../snapshots/log.js";
import { SnapshotStore } from "../snapshots/snapshot-store.js";
import { Unpacker } from "../snapshots/unpacker.js";
import type { ServiceManager } from "../system/service-manager.js";
import type { Tally } from "../system/tally.js";
import { type DescriptorStore, ServiceManagerStore } from "../views/descriptor-store.js";
import { SessionKeeper } from "../views/session-keeper.js";
import { Views } from "../views/views.js";
import { type DaemonConfig, layerLimits } from "./config.js";
import { socketIn } from "./default-paths.js";
import { answerHealthChecks, type End, listenForEngines, serveMetrics } from "./engines.js";
import { groupId } from "./group-id.js";
import { LockFile } from "./lock-file.js";
import { examineMachine } from "./machine.js";

/** The name that systemd gives to what a unit of that name listens on. */
const ACTIVATED_SOCKET = "varve.socket";

/** Undoes one step of the start. */
type Cleanup = () => Promise<void> | void;

/** Percent of the disk to free when only `gc.high` is configured; a kubelet's default. */
const LOW_BELOW_HIGH = 5;

/** A running daemon. */
export class Daemon {
  readonly #core: Core;
  readonly #cleanups: readonly Cleanup[];
  readonly #end: End;
  #stopped: Promise<void> | undefined;

  private constructor(core: Core, cleanups: readonly Cleanup[], end: End) {
    this.#core = core;
    this.#end = end;
    this.#cleanups = cleanups;
  }

  /** What is known of the machine. */
  get machine(): Machine {
    return this.#core.machine;
  }

  /**
   * Starts; answers calls when this resolves. When it fails everything is undone. Sets the process's
   * umask to 0: programs in views choose modes, and everything of our own is created with one.
   *
   * @throws AlreadyExistsError another daemon has one of the directories, or the socket
   * @throws CorruptDataError, FailedPreconditionError the database cannot be used
   */
  static async start(o: {
    config: DaemonConfig;
    log: Log;
    /** The command that starts it again should it die; empty: somebody else does. */
    restart: readonly string[];
    /** Who started this process, if it is told what becomes of it. */
    manager?: ServiceManager | undefined;
    /** How long to wait for another daemon that is about to let go of the directories. */
    patienceMs: number;
    onShutdownRequest(): void;
  }): Promise<Daemon> {
    const cleanups: Cleanup[] = [];
    const end: End = { keepMounts: o.config.keepMounts };
    try {
      const core = await start({ ...o, end }, (cleanup) => cleanups.push(cleanup));
      return new Daemon(core, cleanups, end);
    } catch (error) {
      await undo(cleanups, o.log);
      throw error;
    }
  }

  /**
   * Stops: no more calls, work under way cancelled, mounts ended (or left, as configured, and always
   * for a `successor`), database closed, locks released. Idempotent; never rejects.
   */
  stop(o: { successor: boolean }): Promise<void> {
    if (o.successor) this.#end.keepMounts = true;
    this.#stopped ??= undo(this.#cleanups, this.#core.log);
    return this.#stopped;
  }
}

type OnCleanup = (cleanup: Cleanup) => void;

interface StartOptions {
  readonly config: DaemonConfig;
  readonly log: Log;
  readonly restart: readonly string[];
  readonly manager?: ServiceManager | undefined;
  readonly patienceMs: number;
  readonly end: End;
  onShutdownRequest(): void;
}

async function start(o: StartOptions, onCleanup: OnCleanup): Promise<Core> {
  const { config, end, log } = o;
  // Before the store of views' connections, to which all others belong.
  const listening = o.manager?.take(ACTIVATED_SOCKET);
  // Nothing to read for others, but the state directory is theirs to pass through.
  process.umask(0o066);
  await lockDirectories(config, o.patienceMs, onCleanup);
  const machine = await examineMachine(config.root);
  const database = openDatabase(path.join(config.root, "varve.db"));
  onCleanup(() => database.close());
  const keeper = config.supervise
    ? new SessionKeeper({ state: config.state, command: o.restart, store: storeOf(o.manager), log })
    : undefined;
  onCleanup(() => keeper?.close());
  const opened = await openStores(config, log, machine, database, keeper, onCleanup);
  const { collection, ...stores } = opened;
  const core: Core = {
    paths: { root: config.root, state: config.state, socket: config.socket },
    machine,
    socketGroup: config.socketGroup === undefined ? undefined : groupId(config.socketGroup),
    database,
    log,
    starts: await countStart(config.state),
    ...stores,
    requestShutdown: o.onShutdownRequest,
  };
  onCleanup(() => core.views.close(end));
  onCleanup(() => core.unpacker.settle());
  onCleanup(() => core.registries.close());
  const server = await RpcServer.listen({ ...varveApi(core), descriptor: listening });
  onCleanup(() => server.close());
  const { containerd, kubelet } = await listenForEngines({ config, core, keeper, end }, onCleanup);
  process.umask(0);
  await sweepRuns(config.state);
  await keeper?.open();
  const remount = (view: ViewRow) => remountView(core, view);
  await core.views.open({ restore: config.restoreViews, remount });
  collection.start();
  onCleanup(() => collection.stop());
  await containerd?.snapshots.open();
  keeper?.releaseLeft();
  server.accept();
  containerd?.server.accept();
  kubelet?.accept();
  await serveMetrics(config, core, onCleanup);
  await answerHealthChecks(config, core, [server, containerd?.server, kubelet], onCleanup);
  return core;
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

/** Where the manager keeps views' connections; undefined: a keeper of our own is needed. */
function storeOf(manager: ServiceManager | undefined): DescriptorStore | undefined {
  return manager?.keepsDescriptors === true ? new ServiceManagerStore(manager) : undefined;
}

async function lockDirectories(
  config: DaemonConfig,
  patienceMs: number,
  onCleanup: OnCleanup,
): Promise<void> {
  // 0711: default mount targets lie below the state directory and are for every user.
  await fs.mkdir(config.root, { recursive: true, mode: 0o700 });
  await fs.mkdir(config.state, { recursive: true, mode: 0o711 });
  await fs.mkdir(path.dirname(config.socket), { recursive: true, mode: 0o711 });
  const locks: [string, string][] = [
    [path.join(config.root, "daemon.lock"), `root directory ${config.root}`],
    [path.join(config.state, "daemon.pid"), `state directory ${config.state}`],
  ];
  if (config.socket !== socketIn(config.state)) {
    locks.push([`${config.socket}.lock`, `socket ${config.socket}`]);
  }
  for (const socket of [config.containerdSocket, config.criSocket]) {
    if (socket === undefined) continue;
    await fs.mkdir(path.dirname(socket), { recursive: true, mode: 0o711 });
    locks.push([`${socket}.lock`, `socket ${socket}`]);
  }
  for (const [file, what] of locks) {
    const lock = await LockFile.await(file, what, patienceMs);
    onCleanup(() => lock.release());
  }
}

async function openStores(
  config: DaemonConfig,
  log: Log,
  machine: Machine,
  database: Database,
  keeper: SessionKeeper | undefined,
  onCleanup: OnCleanup,
) {
  const { root, state } = config;
  const { privileged } = machine;
  const tasks = new LayerTasks({ workers: config.unpackWorkers });
  onCleanup(() => tasks.close());
  const makeRoom = () => collection.makeRoom();
  const content = new ContentStore(root, database, makeRoom);
  const recovery = await content.open();
  for (const digest of recovery.missing) log.warn(`blob ${digest} was lost; load its image again`);
  const snapshots = new SnapshotStore({ root, database, tasks, privileged, log });
  await snapshots.open();
  const limits = layerLimits(config);
  const places = { snapshots, blobs: content, tasks };
  const unpacker = new Unpacker({ ...places, privileged, limits, makeRoom });
  const garbage = new GarbageCollector({
    database,
    content,
    discardSnapshots: (names) => snapshots.discard(names),
    busySnapshots: () => unpacker.busy(),
  });
  // What crashed work had leased is nobody's now.
  if (database.leases.deleteTransient() > 0) await garbage.run();
  const events = new EventLog();
  const images = new ImageStore({ database, content, events });
  const collection = makeCollection(config, { images, garbage, events, log });
  const tallies = new Map<string, Tally>();
  const views = new Views({
    ...{ root, state, database, snapshots, tasks, privileged, keeper, log, events, tallies },
    workers: config.fuseWorkers,
    quickWakeUps: config.quickWakeUps,
    io: config.io,
  });
  return {
    tasks,
    content,
    snapshots,
    unpacker,
    garbage,
    views,
    events,
    images,
    collection,
    tallies,
    activity: new Activity(events),
    registries: new Registries({ database, content }),
  };
}

/** Counts in a file how often a daemon was started here; it goes with the machine's boot. */
async function countStart(state: string): Promise<number> {
  const file = path.join(state, "starts");
  const before = Number(await fs.readFile(file, "latin1").catch(() => "0"));
  const starts = Number.isSafeInteger(before) ? before + 1 : 1;
  await fs.writeFile(file, `${starts}\n`, { mode: 0o600 });
  return starts;
}

/** Runs cleanups, the latest first. A failing one is logged and the others still run. */
async function undo(cleanups: readonly Cleanup[], log: Log): Promise<void> {
  for (const cleanup of cleanups.toReversed()) {
    try {
      await cleanup();
    } catch (error) {
      log.warn("shutdown: a step failed", error);
    }
  }
}
