/**
 * A Unix socket that others may connect to long before anybody can answer. It is bound in one step under our umask:
 * there is no moment in which another user could connect.
 */

import { chmodSync, chownSync, unlinkSync } from "node:fs";
import net from "node:net";
import {
  AlreadyExistsError,
  InvalidArgumentError,
  PermissionDeniedError,
} from "../system/errors.js";
import { type Caller, whoConnected } from "./caller.js";

// sizeof(sun_path) less its NUL, unix(7).
const MAX_SOCKET_PATH = 107;
/** Connections that may wait to be received; whoever comes after them is turned away. */
const MAX_EARLY = 1024;

/** Where to listen. */
export interface SocketPlace {
  readonly path: string;
  /** The flag that chooses the path, for messages. */
  readonly flag: string;
  /** A socket that listens there already, from the service manager; owned. */
  readonly descriptor?: number | undefined;
  /** The ID of the group whose members may connect, too. */
  readonly group?: number | undefined;
}

/** Takes a connection over, and who is at its other end. */
export type Receiver = (connection: net.Socket, caller: Caller) => void;

/** See the file comment. */
export class ListeningSocket {
  readonly #listener = net.createServer((connection) => this.#connected(connection));
  readonly #path: string;
  /** Its file is to be removed at the end. */
  readonly #ownsFile: boolean;
  #early: [net.Socket, Caller][] = [];
  #receive: Receiver | undefined;

  private constructor(place: SocketPlace) {
    this.#path = place.path;
    this.#ownsFile = place.descriptor === undefined;
  }

  /**
   * Listens, mode 0600 or, with a group, 0660. A socket file that nobody listens on is replaced; one of the service
   * manager stays when the socket is closed. Changes the umask for a moment: call it before threads create files.
   *
   * @throws AlreadyExistsError somebody listens there
   * @throws InvalidArgumentError the path is too long for a Unix socket
   * @throws PermissionDeniedError the socket cannot be given to the group
   */
  static async open(place: SocketPlace): Promise<ListeningSocket> {
    const { path, flag, group, descriptor } = place;
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
      throw new InvalidArgumentError(
        `listen on ${path}: longer than the ${MAX_SOCKET_PATH} bytes of a Unix socket's path; choose another ${flag}`,
      );
    }
    const socket = new ListeningSocket(place);
    if (descriptor !== undefined) {
      await listenOn(socket.#listener, descriptor);
      return socket;
    }
    await removeStaleSocket(path, flag);
    await bind(socket.#listener, path, group);
    return socket;
  }

  /** Hands over each connection, at first those that wait. */
  receive(receive: Receiver): void {
    this.#receive = receive;
    for (const [connection, caller] of this.#early.splice(0)) {
      if (!connection.destroyed) receive(connection, caller);
    }
  }

  /** Takes no more connections; those that still wait end. Idempotent. */
  close(): void {
    if (!this.#listener.listening) return;
    this.#listener.close();
    if (this.#ownsFile) removeSocket(this.#path);
    for (const [connection] of this.#early.splice(0)) connection.destroy();
  }

  #connected(connection: net.Socket): void {
    // At once: it cannot be asked of a connection that has ended.
    const caller = whoConnected(connection);
    if (this.#receive !== undefined) {
      this.#receive(connection, caller);
    } else if (this.#early.length < MAX_EARLY) {
      // Whoever goes before there was an answer is nobody's concern.
      connection.on("error", () => undefined);
      this.#early.push([connection, caller]);
    } else connection.destroy();
  }
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
