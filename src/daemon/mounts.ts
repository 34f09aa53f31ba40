/**
 * What serves mounted views: the part of a daemon for which programs wait when it takes over from another one.
 * It imports nothing else, since loading the rest takes longer than all that is done here.
 */

import fs from "node:fs/promises";
import path from "node:path";
import type { Digest } from "../content/digest.js";
import { type Database, openDatabase } from "../metadata/database.js";
import { EventLog } from "../metadata/event-log.js";
import { ListeningSocket, type SocketPlace } from "../services/listening-socket.js";
import { LayerTasks } from "../snapshots/layer-tasks.js";
import type { Log } from "../snapshots/log.js";
import { SnapshotStore } from "../snapshots/snapshot-store.js";
import { FailedPreconditionError } from "../system/errors.js";
import type { ServiceManager } from "../system/service-manager.js";
import type { Tally } from "../system/tally.js";
import { type DescriptorStore, ServiceManagerStore } from "../views/descriptor-store.js";
import { ProxySnapshots } from "../views/proxy-snapshots.js";
import { SessionKeeper } from "../views/session-keeper.js";
import { Views } from "../views/views.js";
import type { DaemonConfig } from "./config.js";
import { socketIn } from "./default-paths.js";
import { groupId } from "./group-id.js";
import { LockFile } from "./lock-file.js";
import { isPrivileged } from "./machine.js";

/** The name that systemd gives to what a unit of that name listens on. */
const ACTIVATED_SOCKET = "varve.socket";

/** How the daemon will end. */
export interface End {
  /** Mounts stay in place, for the next daemon. */
  keepMounts: boolean;
}

/** Registers what undoes one step of the start. */
export type OnCleanup = (cleanup: () => Promise<void> | void) => void;

/** What a daemon is started with. */
export interface StartOptions {
  readonly config: DaemonConfig;
  readonly log: Log;
  /** The command that starts it again should it die; empty: somebody else does. */
  readonly restart: readonly string[];
  /** Who started this process, if it is told what becomes of it. */
  readonly manager?: ServiceManager | undefined;
  /** How long to wait for another daemon that is about to let go of the directories. */
  readonly patienceMs: number;
  readonly end: End;
  onShutdownRequest(): void;
}

/** Who may connect already, and waits for an answer; what is not configured is undefined. */
export interface Sockets {
  readonly own: ListeningSocket;
  readonly containerd: ListeningSocket | undefined;
  readonly kubelet: ListeningSocket | undefined;
}

/** What the rest of the daemon is built on. */
export interface Mounts {
  readonly privileged: boolean;
  /** The ID of the group whose members may call as guests; undefined: none. */
  readonly socketGroup: number | undefined;
  readonly sockets: Sockets;
  readonly database: Database;
  readonly tasks: LayerTasks;
  readonly snapshots: SnapshotStore;
  readonly events: EventLog;
  readonly tallies: Map<string, Tally>;
  readonly keeper: SessionKeeper | undefined;
  readonly views: Views;
  /** containerd's, if one is served. */
  readonly containerd: ProxySnapshots | undefined;
}

/**
 * Locks the directories, listens, and goes on serving what an earlier daemon left. Sets the process's
 * umask to 0: programs in views choose modes, and everything of our own is created with one.
 *
 * @throws AlreadyExistsError another daemon has one of the directories, or a socket
 * @throws CorruptDataError, FailedPreconditionError the database cannot be used
 * @throws FailedPreconditionError containerd is to be served without the rights for that
 */
export async function openMounts(o: StartOptions, onCleanup: OnCleanup): Promise<Mounts> {
  const { config, end, log, manager } = o;
  const { root, state } = config;
  // Before the store of views' connections, to which all others belong.
  const descriptor = manager?.take(ACTIVATED_SOCKET);
  // Nothing to read for others, but the state directory is theirs to pass through.
  process.umask(0o066);
  await lockDirectories(config, o.patienceMs, onCleanup);
  const privileged = isPrivileged();
  if (config.containerdSocket !== undefined && !privileged) {
    throw new FailedPreconditionError(
      "serve containerd: this needs root (CAP_SYS_ADMIN in the initial user namespace)",
    );
  }
  const { socketGroup: group } = config;
  const socketGroup = group === undefined ? undefined : groupId(group);
  const database = openDatabase(path.join(root, "varve.db"));
  onCleanup(() => database.close());
  // Not before the database: whoever connects takes it that the daemon can be started.
  const sockets = await listen(config, { descriptor, group: socketGroup }, onCleanup);
  const keeper = config.supervise
    ? new SessionKeeper({ state, command: o.restart, store: storeOf(manager), log })
    : undefined;
  onCleanup(() => keeper?.close());
  const tasks = new LayerTasks({ workers: config.unpackWorkers });
  onCleanup(() => tasks.close());
  const snapshots = new SnapshotStore({ root, database, tasks, privileged, log });
  const shared = { database, tasks, snapshots, keeper, privileged };
  const parts = { ...shared, events: new EventLog(), tallies: new Map<string, Tally>() };
  const views = openViews(o, parts, onCleanup);
  const containerd = openContainerd(o, parts, onCleanup);
  process.umask(0);
  await keeper?.open();
  // Until the start has succeeded: programs wait in them, and the next daemon may do better.
  if (keeper?.hasInherited === true) end.keepMounts = true;
  await Promise.all([views.takeOver(), containerd?.takeOver()]);
  return { ...parts, socketGroup, sockets, views, containerd };
}

type Parts = Omit<Mounts, "socketGroup" | "sockets" | "views" | "containerd">;

function openViews({ config, log, end }: StartOptions, parts: Parts, onCleanup: OnCleanup): Views {
  const { root, state, fuseWorkers: workers, quickWakeUps, io } = config;
  const views = new Views({ ...parts, root, state, log, workers, quickWakeUps, io });
  onCleanup(() => views.close(end));
  return views;
}

function openContainerd(
  { config, log, end }: StartOptions,
  { database, tasks, snapshots, keeper, tallies }: Parts,
  onCleanup: OnCleanup,
): ProxySnapshots | undefined {
  const { root, state, containerdSocket, containerdMounts: form } = config;
  const { fuseWorkers: workers, quickWakeUps, io } = config;
  if (containerdSocket === undefined) return undefined;
  const sharing = {
    settle: () => snapshots.settle(),
    readyIndex: (chainId: Digest) => snapshots.readyIndex(chainId),
  };
  const serving = { workers, quickWakeUps, io, keeper, tallies };
  const proxy = new ProxySnapshots({
    root,
    state,
    database,
    tasks,
    log,
    ...serving,
    form,
    sharing,
  });
  onCleanup(() => proxy.close(end));
  return proxy;
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

async function listen(
  { socket, containerdSocket, criSocket }: DaemonConfig,
  own: Pick<SocketPlace, "descriptor" | "group">,
  onCleanup: OnCleanup,
): Promise<Sockets> {
  const open = async (place: SocketPlace) => {
    const listening = await ListeningSocket.open(place);
    onCleanup(() => listening.close());
    return listening;
  };
  const openIf = (path: string | undefined, flag: string) =>
    path === undefined ? undefined : open({ path, flag });
  return {
    own: await open({ path: socket, flag: "--socket", ...own }),
    containerd: await openIf(containerdSocket, "--containerd-socket"),
    kubelet: await openIf(criSocket, "--cri-socket"),
  };
}
