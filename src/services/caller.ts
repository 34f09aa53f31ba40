/**
 * Who calls. The kernel says who connected to a Unix socket; that cannot be forged.
 *
 * An *owner* is root or the user whose daemon this is: calls do whatever the daemon can. Anybody else
 * whom the socket's mode let in is a *guest*: paths that a guest names are opened with the guest's rights,
 * and what cannot be done so is refused.
 */

import type { Socket } from "node:net";
import { sys } from "../system/addon.js";
import { PermissionDeniedError } from "../system/errors.js";

/** One end of a connection. */
export interface Caller {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups. */
  readonly groups: readonly number[];
  readonly isOwner: boolean;
}

/** Somebody of whom nothing is known, over a network for example: has no rights. */
export const STRANGER: Caller = { pid: 0, uid: -1, gid: -1, groups: [], isOwner: false };

/** Who connected; `STRANGER` when the kernel does not say. */
export function whoConnected(connection: Socket): Caller {
  // Node has no public way to a socket's descriptor.
  const { fd } = (connection as unknown as { _handle?: { fd?: number } })._handle ?? {};
  const credentials = fd === undefined || fd < 0 ? undefined : sys.peerCredentials(fd);
  if (!Array.isArray(credentials)) return STRANGER;
  const [pid = 0, uid = -1, gid = -1, ...groups] = credentials;
  return { pid, uid, gid, groups, isOwner: uid === 0 || uid === process.geteuid?.() };
}

/**
 * Refuses what guests may not ask for.
 *
 * @param what "operation object", for the message
 * @param remedy what to do instead
 * @throws PermissionDeniedError
 */
export function ownersOnly(caller: Caller, what: string, remedy: string): void {
  if (caller.isOwner) return;
  throw new PermissionDeniedError(
    `${what}: user ${caller.uid} is neither root nor the user of this daemon; ${remedy}`,
  );
}

/** The callers of one server's connections. */
export class CallerTable {
  readonly #callers = new Map<string, Caller>();
  #last = 0;

  /** Makes `of` find the caller for calls on this connection, until it is closed. */
  add(connection: Socket, caller: Caller): void {
    // grpc-js tells handlers the peer's address, and a Unix socket's peer has none: it gets one.
    const address = `caller-${++this.#last}`;
    Object.defineProperty(connection, "remoteAddress", { value: address });
    this.#callers.set(address, caller);
    connection.once("close", () => this.#callers.delete(address));
  }

  /** @param address what grpc-js says of a call's peer */
  of(address: string): Caller {
    return this.#callers.get(address) ?? STRANGER;
  }
}
