/**
 * The gRPC server on a Unix socket. The socket is ours (see listening-socket.ts), and its connections are handed to
 * grpc-js when they may be answered.
 */

import type net from "node:net";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { Log } from "../snapshots/log.js";
import type { ProxySnapshots } from "../views/proxy-snapshots.js";
import { withPlainAuthority } from "./authority-filter.js";
import { buildHandlers } from "./build-service.js";
import { type Caller, CallerTable } from "./caller.js";
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
import type { ListeningSocket } from "./listening-socket.js";
import type { Activity } from "./metrics/activity.js";
import { registryHandlers } from "./registry-service.js";
import { MAX_MESSAGE_BYTES } from "./status.js";
import { storeHandlers } from "./store-service.js";
import { viewHandlers } from "./view-service.js";

/** How long calls under way may take to end by themselves. */
const DRAIN_MS = 2000;

/** What a server answers. */
export interface ServedApi {
  readonly log: Log;
  /** Counts calls. */
  readonly activity?: Activity;
  /** Full names of its services. */
  readonly services: readonly string[];
  /** Who is neither root nor the daemon's user is turned away, whatever the socket's mode says. */
  readonly isForOwners?: boolean;
  /** What the server reads in a connection's stead. */
  readonly filter?: (connection: net.Socket) => Duplex;
  addTo(server: Server, options: ServeOptions): void;
}

/** varve.v1, for our own clients. */
export function varveApi(core: Core): ServedApi {
  return {
    log: core.log,
    activity: core.activity,
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
export function containerdApi({ snapshots, differ, log }: ContainerdParts): ServedApi {
  return {
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
export function criApi(parts: CriParts): ServedApi {
  return {
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

/** A server; every one answers gRPC's health checks too. */
export class RpcServer {
  readonly #socket: ListeningSocket;
  readonly #grpc: Server;
  readonly #ending = new AbortController();
  readonly #connections = new Set<net.Socket>();
  readonly #callers = new CallerTable();
  readonly #limits: GuestLimits;
  readonly #api: ServedApi;
  /** Handlers that are running. */
  readonly #calls = new Set<Promise<void>>();
  readonly #inject: (connection: net.Socket) => void;

  /** Full names of its services. */
  readonly services: readonly string[];

  /** Answers on a socket, which is the server's from now on. */
  constructor(socket: ListeningSocket, api: ServedApi) {
    this.services = api.services;
    this.#socket = socket;
    this.#api = api;
    this.#limits = new GuestLimits(api.log);
    this.#grpc = this.#makeServer(api);
    const injector = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
    const { filter = (connection) => connection } = api;
    this.#inject = (connection) => injector.injectConnection(filter(connection));
    socket.receive((connection, caller) => this.#receive(connection, caller));
  }

  /**
   * Takes no more calls, gives those under way a moment to end, then cancels them. Their handlers
   * have ended when this resolves.
   */
  async close(): Promise<void> {
    this.#ending.abort();
    this.#socket.close();
    const answered = new Promise<void>((resolve) => this.#grpc.tryShutdown(() => resolve()));
    await Promise.race([answered, sleep(DRAIN_MS, undefined, { ref: false })]);
    this.#grpc.forceShutdown();
    for (const connection of this.#connections) connection.destroy();
    await Promise.all(this.#calls);
  }

  #receive(connection: net.Socket, caller: Caller): void {
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
    this.#inject(connection);
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
