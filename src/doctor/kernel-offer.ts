/**
 * What the kernel offers to FUSE servers, by its own word: the first request of a connection that is
 * made for it and closed again unanswered. Versions do not tell: distributions switch features off and
 * bring newer ones to older kernels.
 */

import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { mountFuse, unmountFuse } from "../fuse/mount-point.js";
import { decodeInit, type InitOffer } from "../fuse/negotiation.js";
import { RequestBuffer } from "../fuse/request.js";
import { EAGAIN } from "../system/errno.js";
import { UnsupportedError } from "../system/errors.js";
import type { FuseChannel } from "../system/native.js";

/** The kernel queues the request while it mounts; this is for a very busy machine. */
const TRIES = 200;
const PAUSE_MS = 2;

/**
 * Mounts, asks, and unmounts.
 *
 * @throws UnsupportedError no FUSE, or no answer; PermissionDeniedError, FailedPreconditionError as mountFuse
 */
export async function askKernel(privileged: boolean): Promise<InitOffer> {
  const target = mkdtempSync(join(tmpdir(), "varve-doctor-"));
  try {
    const subtype = "varve-doctor";
    const channel = mountFuse({ target, source: subtype, subtype, readOnly: true, privileged });
    try {
      return await receiveOffer(channel);
    } finally {
      // First the connection: nobody who looks at the mount may be left waiting for an answer.
      channel.close();
      await unmountFuse(target, true, privileged);
    }
  } finally {
    rmdirSync(target);
  }
}

async function receiveOffer(channel: FuseChannel): Promise<InitOffer> {
  const request = new RequestBuffer();
  let length = channel.receive(request.buffer);
  for (let tries = 1; length === -EAGAIN && tries < TRIES; tries++) {
    await sleep(PAUSE_MS);
    length = channel.receive(request.buffer);
  }
  if (length <= 0) throw new UnsupportedError(`FUSE: the kernel offers nothing (errno ${-length})`);
  request.begin(length);
  return decodeInit(request);
}
