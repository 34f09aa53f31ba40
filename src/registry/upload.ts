/**
 * Sending blobs and manifests.
 *
 * @see OCI distribution-spec, "Push"
 */

import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import type { Descriptor } from "../content/descriptor.js";
import { ResourceExhaustedError, UnavailableError } from "../system/errors.js";
import type { Connection, HostAnswer } from "./connection.js";
import { TransientError } from "./failures.js";
import type { Repository } from "./repository.js";
import { withRetries } from "./retry.js";

/** What an upload needs. */
export interface Upload {
  readonly repository: Repository;
  readonly descriptor: Descriptor;
  /** The blob's file. */
  readonly file: string;
  /** Repositories of the same registry that may have the blob. */
  readonly sources: readonly string[];
  readonly signal?: AbortSignal | undefined;
  report(current: number): void;
}

/** How a blob came to be in the repository. */
export type UploadOutcome = "exists" | "mounted" | "sent";

/** Smaller blobs go in one request, larger ones in some that can be resumed. */
const MONOLITHIC_BYTES = 1024 * 1024;

/** What a request carries at most when one with everything is too much for the registry. */
const CHUNK_BYTES = [64 * 1024 * 1024, 16 * 1024 * 1024, 4 * 1024 * 1024];

const READ_BYTES = 256 * 1024;

/** An upload under way. */
interface UploadState {
  /** Where the next request goes. */
  target: URL;
  /** Bytes that the registry is known to have. */
  offset: number;
  chunkBytes: number;
}

/**
 * Makes sure that the repository has a blob: by looking, by mounting it from another repository, or
 * by sending it. A broken upload goes on where the registry says that it stopped, or from the start
 * when the registry has given it up.
 *
 * @throws PermissionDeniedError, UnavailableError, ResourceExhaustedError, CancelledError
 */
export async function uploadBlob(upload: Upload): Promise<UploadOutcome> {
  const { repository, descriptor, signal } = upload;
  const { domain, path } = repository.name;
  const what = `push blob ${descriptor.digest} to ${domain}/${path}`;
  const connection = repository.connections("push").at(-1)!;
  const isThere = () => hasBlob(upload, connection, what);
  if (await withRetries(repository.retry, signal, isThere)) return "exists";
  let state: UploadState | undefined;
  return await withRetries(repository.retry, signal, async (progressed) => {
    if (state !== undefined) {
      const before = state.offset;
      state = await resume(upload, connection, state, what);
      if (state !== undefined && state.offset > before) progressed();
      // Perhaps all was well but the last answer.
      if (state === undefined && (await isThere())) return "sent";
    }
    if (state === undefined) {
      const started = await startUpload(upload, connection, what);
      if (started.status === 201) return "mounted";
      state = { target: locationOf(started, what), offset: 0, chunkBytes: descriptor.size };
    }
    await sendRest(upload, connection, state, what);
    return "sent";
  });
}

async function hasBlob(upload: Upload, connection: Connection, what: string): Promise<boolean> {
  const answer = await connection.send({
    method: "HEAD",
    path: `/${connection.host.path}/blobs/${upload.descriptor.digest}`,
    scopes: connection.scopes("pull,push"),
    signal: upload.signal,
    what,
    accept: [200, 404],
  });
  await answer.body.dump();
  return answer.status === 200;
}

/** Starts an upload; each known source is tried for a mount first. */
async function startUpload(
  upload: Upload,
  connection: Connection,
  what: string,
): Promise<HostAnswer> {
  const { repository, descriptor, sources, signal } = upload;
  const path = `/${repository.name.path}/blobs/uploads/`;
  const scopes = connection.scopes("pull,push");
  const request = { method: "POST", signal, what, accept: [201, 202] } as const;
  for (const source of sources) {
    const query = new URLSearchParams({ mount: descriptor.digest, from: source });
    try {
      const answer = await connection.send({
        ...request,
        path: `${path}?${query}`,
        // Without the right to read the source, the token server leaves its scope away.
        scopes: [...scopes, `repository:${source}:pull`],
      });
      await answer.body.dump();
      // 202: not mounted, but an upload was started, which serves as well.
      return answer;
    } catch (error) {
      if (signal?.aborted === true || error instanceof TransientError) throw error;
      // Some registries refuse a mount that they cannot do; then it is sent.
    }
  }
  const answer = await connection.send({ ...request, path, scopes });
  await answer.body.dump();
  return answer;
}

async function sendRest(
  upload: Upload,
  connection: Connection,
  state: UploadState,
  what: string,
): Promise<void> {
  const { size } = upload.descriptor;
  if (size > MONOLITHIC_BYTES) {
    while (state.offset < size) {
      try {
        await sendChunk(upload, connection, state, what);
      } catch (error) {
        const smaller = CHUNK_BYTES.find((bytes) => bytes < Math.min(state.chunkBytes, size));
        // A proxy before the registry may allow less than the registry does.
        if (!(error instanceof ResourceExhaustedError) || smaller === undefined) throw error;
        state.chunkBytes = smaller;
      }
    }
  }
  await finish(upload, connection, state, what);
}

async function sendChunk(
  upload: Upload,
  connection: Connection,
  state: UploadState,
  what: string,
): Promise<void> {
  const end = Math.min(upload.descriptor.size, state.offset + state.chunkBytes);
  const answer = await connection.send({
    method: "PATCH",
    path: state.target.href,
    headers: {
      "content-type": "application/octet-stream",
      "content-length": String(end - state.offset),
      "content-range": `${state.offset}-${end - 1}`,
    },
    body: readFrom(upload, state.offset, end),
    scopes: connection.scopes("pull,push"),
    signal: upload.signal,
    what,
    accept: [201, 202, 204],
  });
  await answer.body.dump();
  state.target = locationOf(answer, what);
  state.offset = end;
}

/** Ends an upload with what is left of the blob. */
async function finish(
  upload: Upload,
  connection: Connection,
  state: UploadState,
  what: string,
): Promise<void> {
  const { descriptor, signal } = upload;
  const target = new URL(state.target);
  target.searchParams.set("digest", descriptor.digest);
  const rest = descriptor.size - state.offset;
  const answer = await connection.send({
    method: "PUT",
    path: target.href,
    headers: { "content-type": "application/octet-stream", "content-length": String(rest) },
    ...(rest === 0 ? {} : { body: readFrom(upload, state.offset, descriptor.size) }),
    scopes: connection.scopes("pull,push"),
    signal,
    what,
    accept: [201, 204],
  });
  await answer.body.dump();
  upload.report(descriptor.size);
}

/** Asks how far an upload is; undefined when the registry knows nothing of it any more. */
async function resume(
  upload: Upload,
  connection: Connection,
  state: UploadState,
  what: string,
): Promise<UploadState | undefined> {
  const answer = await connection.send({
    method: "GET",
    path: state.target.href,
    scopes: connection.scopes("pull,push"),
    signal: upload.signal,
    what,
    // docker-registry gives up an upload whose body broke, and says so in one of these ways.
    accept: [204, 400, 404, 416],
  });
  await answer.body.dump();
  if (answer.status !== 204) return undefined;
  // An empty upload says "0-0" too. Taken for none: a registry that really has one byte refuses.
  const last = Number(/^(?:bytes=)?0-(\d+)$/.exec(String(answer.headers.range ?? ""))?.[1] ?? 0);
  const offset = last === 0 ? 0 : last + 1;
  return { ...state, offset, target: locationOf(answer, what) };
}

function locationOf(answer: HostAnswer, what: string): URL {
  const { location } = answer.headers;
  if (typeof location === "string" && URL.canParse(location, answer.url)) {
    return new URL(location, answer.url);
  }
  throw new UnavailableError(`${what}: the registry does not say where to send the blob`);
}

function readFrom(upload: Upload, start: number, end: number): Readable {
  async function* chunks(): AsyncGenerator<Buffer> {
    const stream = createReadStream(upload.file, {
      start,
      end: end - 1,
      highWaterMark: READ_BYTES,
    });
    let sent = start;
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      yield chunk;
      sent += chunk.length;
      upload.report(sent);
    }
  }
  return Readable.from(chunks(), { objectMode: false });
}

/**
 * Sends a manifest or index under a tag or its own digest.
 *
 * @throws PermissionDeniedError, UnavailableError, CancelledError
 */
export async function uploadManifest(
  repository: Repository,
  reference: string,
  manifest: { readonly mediaType: string; readonly bytes: Buffer },
  signal?: AbortSignal,
): Promise<void> {
  const { domain, path } = repository.name;
  const what = `push manifest ${reference} to ${domain}/${path}`;
  const connection = repository.connections("push").at(-1)!;
  await withRetries(repository.retry, signal, async () => {
    const answer = await connection.send({
      method: "PUT",
      path: `/${path}/manifests/${reference}`,
      headers: { "content-type": manifest.mediaType },
      body: manifest.bytes,
      scopes: connection.scopes("pull,push"),
      signal,
      what,
      accept: [200, 201, 202],
    });
    await answer.body.dump();
  });
}

/** True when the repository has this manifest. */
export async function hasManifest(
  repository: Repository,
  descriptor: Descriptor,
  signal?: AbortSignal,
): Promise<boolean> {
  const { domain, path } = repository.name;
  const connection = repository.connections("push").at(-1)!;
  return await withRetries(repository.retry, signal, async () => {
    const answer = await connection.send({
      method: "HEAD",
      path: `/${path}/manifests/${descriptor.digest}`,
      headers: { accept: descriptor.mediaType },
      scopes: connection.scopes("pull,push"),
      signal,
      what: `look for manifest ${descriptor.digest} in ${domain}/${path}`,
      accept: [200, 404],
    });
    await answer.body.dump();
    return answer.status === 200;
  });
}
