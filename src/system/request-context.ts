/**
 * Which request the code that runs just now works for: its ID comes from the client, so that one command's
 * doings can be found in the log. Follows promises and callbacks; what outlives the request is made outside.
 */

import { AsyncLocalStorage } from "node:async_hooks";
import { randomBytes } from "node:crypto";

/** Metadata with the client's ID for what it does; several calls of one command share it. */
export const REQUEST_ID_HEADER = "varve-request-id";
const ID = /^[A-Za-z0-9_.-]{1,64}$/;

/** What log lines say of the request that they belong to. */
export interface RequestContext {
  readonly request: string;
  readonly method: string;
  /** Who asks: user and process. */
  readonly uid?: number;
  readonly peer?: number;
}

const storage = new AsyncLocalStorage<RequestContext>();

/** The request at work; undefined for what the daemon does by itself. */
export function currentRequest(): RequestContext | undefined {
  return storage.getStore();
}

/** Runs `work`, which makes something that serves many requests, for none. */
export function outsideRequests<R>(work: () => R): R {
  return storage.exit(work);
}

/**
 * Runs `work` for a request; an ID that is none is replaced by one.
 *
 * @param who absent where the caller is not known, over a network
 */
export function forRequest<R>(
  o: { id: string | undefined; method: string; who?: { uid: number; pid: number } | undefined },
  work: () => R,
): R {
  const { id, method, who } = o;
  const request = id !== undefined && ID.test(id) ? id : randomBytes(6).toString("hex");
  return storage.run(
    { request, method, ...(who === undefined ? {} : { uid: who.uid, peer: who.pid }) },
    work,
  );
}
