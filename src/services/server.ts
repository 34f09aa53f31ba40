/**
 * The gRPC server on a Unix socket.
 *
 * The socket is ours and its connections are handed to grpc-js, because only so does binding happen
 * in one step under our umask: there is no moment in which another user could connect. And so
 * connections can be taken while the daemon is not quite ready, and answered when it is.
 */

import { chmodSync, chownSync, unlinkSync } from "node:fs";
import net from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { Log } from "../snapshots/log.js";
import {
  AlreadyExistsError,
  InvalidArgumentError,
  PermissionDeniedError,
} from "../system/errors.js";
import type { ProxySnapshots } from "../views/proxy-snapshots.js";
import { withPlainAuthority } from "./authority-filter.js";
import { buildHandlers } from "./build-service.js";
import { type Caller, CallerTable, whoConnected } from "./caller.js";
import { type DifferParts, diffHandlers } from "./containerd/diff-service.js";
import { snapshotHandlers } from "./containerd/snapshot-service.js";
import type { Core } from "./core.js";
import { type CriParts, criImageHandlers } from "./cri/image-service.js";
import { daemonHandlers } from "./daemon-service.js";
import { Diff } from "./gen/containerd/services/diff/v1/diff_pb.js";
import { Snapshots } from "./gen/containerd/services/snapshots/v1/snapshots_pb.js";
import { Health } from "./gen/grpc/health/v1/health_pb.js";
import { ImageService } from "./gen/runtime/v1/image_pb.js";
import { Varve } from "./gen/varve/v1/varve_pb.js";
import { addService, type ServeOptions } from "./grpc-adapter.js";
import { GuestLimits } from "./guest-limits.js";
import { healthHandlers } from "./health-service.js";
import { imageHandlers } from "./image-service.js";
import type { Activity } from "./metrics/activity.js";
import { registryHandlers } from "./registry-service.js";
import { MAX_MESSAGE_BYTES } from "./status.js";
import { storeHandlers } from "./store-service.js";
import { viewHandlers } from "./view-service.js";

// sizeof(sun_path) less its NUL, unix(7).
const MAX_SOCKET_PATH = 107;
/** How long calls under way may take to end by themselves. */
const DRAIN_MS = 2000;

/** What a server answers. */
export interface ServedApi {
  readonly socketPath: string;
  /** The flag that chooses the path, for messages. */
  readonly flag: string;
  readonly log: Log;
  /** Counts calls. */
  readonly activity?: Activity;
  /** Full names of its services. */
  readonly services: readonly string[];
  /** A socket that listens there already, from the service manager; owned. */
  readonly descriptor?: number | undefined;
  /** The ID of the group whose members may connect, too, as guests. */
  readonly group?: number | undefined;
  /** Who is neither root nor the daemon's user is turned away, whatever the socket's mode says. */
  readonly isForOwners?: boolean;
  /** What the server reads in a connection's stead. */
  readonly filter?: (connection: net.Socket) => Duplex;
  addTo(server: Server, options: ServeOptions): void;
}

/** varve.v1, for our own clients. */
export function varveApi(core: Core): ServedApi {
  return {
    socketPath: core.paths.socket,
    flag: "--socket",
    log: core.log,
    activity: core.activity,
    group: core.socketGroup,
    services: [Varve.typeName],
    addTo: (server, options) => {
      const handlers = {
        ...buildHandlers(core),
        ...daemonHandlers(core),
        ...imageHandlers(core),
        ...registryHandlers(core),
        ...storeHandlers(core),
        ...viewHandlers(core),
      };
      addService(server, Varve, handlers, options);
    },
  };
}

/** What a containerd is served with. */
export interface ContainerdParts {
  readonly snapshots: ProxySnapshots;
  /** Absent where nobody said where containerd's content is. */
  readonly differ: DifferParts | undefined;
  readonly log: Log;
}

/** containerd's snapshotter interface, and its differ's. */
export function containerdApi(socketPath: string, parts: ContainerdParts): ServedApi {
  const { snapshots, differ, log } = parts;
  return {
    socketPath,
    flag: "--containerd-socket",
    isForOwners: true,
    log,
    services: [Snapshots.typeName, ...(differ === undefined ? [] : [Diff.typeName])],
    addTo: (server, options) => {
      addService(server, Snapshots, snapshotHandlers(snapshots), options);
      if (differ !== undefined) addService(server, Diff, diffHandlers(differ), options);
    },
  };
}

/** Kubernetes' image service. */
export function criApi(socketPath: string, parts: CriParts): ServedApi {
  return {
    socketPath,
    flag: "--cri-socket",
    isForOwners: true,
    log: parts.core.log,
    activity: parts.core.activity,
    services: [ImageService.typeName],
    filter: withPlainAuthority,
    addTo: (server, options) => {
      addService(server, ImageService, criImageHandlers(parts), options);
    },
  };
}

/** A listening server; every one answers gRPC's health checks too. */
export class RpcServer {
  readonly #listener = net.createServer((connection) => this.#receive(connection));
  readonly #grpc: Server;
  readonly #ending = new AbortController();
  readonly #socketPath: string;
  /** Its file is to be removed at the end. */
  readonly #ownsSocket: boolean;
  /** Connections that came before `accept`; undefined after it. */
  #early: net.Socket[] | undefined = [];
  readonly #connections = new Set<net.Socket>();
  readonly #callers = new CallerTable();
  readonly #limits: GuestLimits;
  readonly #api: ServedApi;
  /** Handlers that are running. */
  readonly #calls = new Set<Promise<void>>();
  readonly #inject: (connection: net.Socket) => void;

  /** Full names of its services. */
  readonly services: readonly string[];

  private constructor(api: ServedApi) {
    this.services = api.services;
    this.#api = api;
    this.#limits = new GuestLimits(api.log);
    this.#socketPath = api.socketPath;
    this.#ownsSocket = api.descriptor === undefined;
    this.#grpc = this.#makeServer(api);
    const injector = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
    const { filter = (connection) => connection } = api;
    this.#inject = (connection) => injector.injectConnection(filter(connection));
  }

  /**
   * Listens on `api.socketPath`, mode 0600 or, with a group, 0660; calls wait until `accept`. A socket file that nobody
   * listens on is replaced; one of the service manager stays when the server closes. Changes the umask for a moment: call it before threads create files.
   *
   * @throws AlreadyExistsError somebody listens there
   * @throws InvalidArgumentError the path is too long for a Unix socket
   */
  static async listen(api: ServedApi): Promise<RpcServer> {
    const { socketPath, flag, group } = api;
    if (Buffer.byteLength(socketPath) > MAX_SOCKET_PATH) {
      throw new InvalidArgumentError(
        `listen on ${socketPath}: longer than the ${MAX_SOCKET_PATH} bytes of a Unix socket's path; choose another ${flag}`,
      );
    }
    const server = new RpcServer(api);
    if (api.descriptor !== undefined) {
      await listenOn(server.#listener, api.descriptor);
      return server;
    }
    await removeStaleSocket(socketPath, flag);
    await bind(server.#listener, socketPath, group);
    return server;
  }

  /** Starts to answer calls. */
  accept(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const connection of early) this.#inject(connection);
  }

  /**
   * Takes no more calls, gives those under way a moment to end, then cancels them. Their handlers
   * have ended when this resolves.
   */
  async close(): Promise<void> {
    this.#ending.abort();
    this.#listener.close();
    if (this.#ownsSocket) removeSocket(this.#socketPath);
    const answered = new Promise<void>((resolve) => this.#grpc.tryShutdown(() => resolve()));
    await Promise.race([answered, sleep(DRAIN_MS, undefined, { ref: false })]);
    this.#grpc.forceShutdown();
    for (const connection of this.#connections) connection.destroy();
    await Promise.all(this.#calls);
  }

  #receive(connection: net.Socket): void {
    const caller = whoConnected(connection);
    const { uid, pid, isOwner } = caller;
    if (!isOwner && (this.#api.isForOwners === true || uid < 0)) {
      this.#api.log.warn(`refused a connection of process ${pid} of user ${uid}`);
      connection.destroy();
      return;
    }
    if (!this.#limits.connected(caller)) {
      connection.destroy();
      return;
    }
    connection.once("close", () => this.#limits.disconnected(caller));
    this.#callers.add(connection, caller);
    this.#connections.add(connection);
    connection.once("close", () => this.#connections.delete(connection));
    if (this.#early === undefined) this.#inject(connection);
    else this.#early.push(connection);
  }

  #makeServer(api: ServedApi): Server {
    const server = new Server({
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      // Nobody but a debugger of grpc itself reads it, and it costs time and memory on each call.
      "grpc.enable_channelz": 0,
    });
    const options = {
      logBug: (error: unknown) => api.log.warn("a request failed in an unforeseen way", error),
      onCall: (ended: Promise<void>) => {
        this.#calls.add(ended);
        void ended.then(() => this.#calls.delete(ended));
      },
      callerOf: (address: string) => this.#callers.of(address),
      admit: (caller: Caller, method: string) => this.#limits.begin(caller, method),
      begin: (method: string, caller: Caller) => beginCall(api, method, caller),
    };
    api.addTo(server, options);
    addService(server, Health, healthHandlers(api.services, this.#ending.signal), options);
    return server;
  }
}

/** Counts a call, and says at its end how it went. */
function beginCall(
  { activity, log }: ServedApi,
  method: string,
  { isOwner, uid, pid }: Caller,
): (code: string) => void {
  const count = activity?.begin(method);
  const startedMs = performance.now();
  return (code) => {
    count?.(code);
    const ended = `${method}: ${code} after ${Math.round(performance.now() - startedMs)} ms`;
    if (isOwner) log.debug(ended);
    else log.info(`${ended}, for process ${pid} of user ${uid}`);
  };
}

/** @throws AlreadyExistsError somebody listens */
async function removeStaleSocket(socketPath: string, flag: string): Promise<void> {
  const isAlive = await new Promise<boolean>((resolve) => {
    const probe = net.connect({ path: socketPath });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
  if (isAlive) {
    throw new AlreadyExistsError(
      `listen on ${socketPath}: another process listens there; choose another ${flag} or stop it`,
    );
  }
  removeSocket(socketPath);
}

function removeSocket(socketPath: string): void {
  try {
    unlinkSync(socketPath);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/** Of a socket that listens already. */
function listenOn(listener: net.Server, descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => {
    listener.once("error", reject);
    listener.listen({ fd: descriptor }, () => {
      listener.removeListener("error", reject);
      resolve();
    });
  });
}

function bind(listener: net.Server, socketPath: string, group: number | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    listener.once("error", reject);
    // listen(2) on a path happens before the call returns, so the umask is changed for no other work.
    const umask = process.umask(0o177);
    try {
      listener.listen(socketPath, () => {
        listener.removeListener("error", reject);
        // Again, for a Node that would bind later after all.
        chmodSync(socketPath, 0o600);
        try {
          if (group !== undefined) openToGroup(socketPath, group);
          resolve();
        } catch (error) {
          reject(error);
        }
      });
    } finally {
      process.umask(umask);
    }
  });
}

/** @throws PermissionDeniedError an ordinary user's daemon, and the user is not in that group */
function openToGroup(socketPath: string, group: number): void {
  try {
    chownSync(socketPath, -1, group);
  } catch (cause) {
    throw new PermissionDeniedError(
      `listen on ${socketPath}: cannot give the socket to group ${group}: ${(cause as Error).message}`,
      { cause },
    );
  }
  chmodSync(socketPath, 0o660);
}
