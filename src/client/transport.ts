/**
 * gRPC calls over node:http2 on a Unix socket, written by hand because the command line must start
 * in milliseconds and a general gRPC library costs more than all else it loads.
 *
 * Vocabulary: a *session* is one HTTP/2 connection, made at the first call and again after it broke;
 * a *call* is one stream of it.
 */

import http2, { type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import net from "node:net";
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  BaseError,
  CancelledError,
  PermissionDeniedError,
  UnavailableError,
} from "../system/errors.js";
import { FrameReader, frameMessage } from "./message-frames.js";
import { errorFromTrailers } from "./status-error.js";

/** What every call accepts. */
export interface CallOptions {
  /** Aborting ends the call with CancelledError; the daemon stops the work if nobody else wants it. */
  readonly signal?: AbortSignal;
  /** The call fails with UnavailableError after this many milliseconds. Unset: no limit. */
  readonly timeoutMs?: number;
  /** The call sends its result alone, no progress. */
  readonly quiet?: boolean;
}

type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { input: I; output: O };
type Requests<I extends DescMessage> = AsyncIterable<MessageInitShape<I>>;

// 4 MiB: with HTTP/2's default of 64 KiB an archive's bytes wait for a window update all the time.
const WINDOW_BYTES = 4 * 1024 * 1024;

/** A connection to one daemon. Safe for any number of calls at once. */
export class GrpcTransport {
  readonly #socketPath: string;
  /** By which the daemon's log names all that is asked for here. */
  readonly requestId = `${process.pid.toString(36)}-${Date.now().toString(36)}`;
  #session: Promise<ClientHttp2Session> | undefined;
  #openCalls = 0;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** One request, one response. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    let response: MessageShape<O> | undefined;
    for await (const message of this.stream(method, one(request), options)) response = message;
    if (response === undefined) {
      throw new UnavailableError(`${method.name}: the daemon answered without a message`);
    }
    return response;
  }

  /** One request, many responses. Leaving the loop early cancels the call. */
  serverStream<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    return this.stream(method, one(request), options);
  }

  /**
   * Requests as they come (with backpressure), responses as they come. An error thrown by `requests`
   * cancels the call and is rethrown.
   */
  async *stream<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    requests: Requests<I>,
    options: CallOptions = {},
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const name = method.name;
    if (options.signal?.aborted === true) throw new CancelledError(`${name}: cancelled`);
    const session = await this.#connect();
    this.#openCalls++;
    session.ref();
    const call = new Call(session, method, { ...options, requestId: this.requestId });
    try {
      void call.send(requests, (message) => toBinary(method.input, create(method.input, message)));
      for await (const message of call.messages()) yield fromBinary(method.output, message);
    } finally {
      call.end();
      // An idle connection must not keep a program alive that forgot to close it.
      if (--this.#openCalls === 0) session.unref();
    }
  }

  /** Closes the connection; calls under way fail with UnavailableError. */
  close(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.then(
      (open) => open.destroy(),
      () => undefined,
    );
  }

  #connect(): Promise<ClientHttp2Session> {
    this.#session ??= this.#open().catch((error: unknown) => {
      this.#session = undefined;
      throw error;
    });
    return this.#session;
  }

  async #open(): Promise<ClientHttp2Session> {
    const socket = await connectSocket(this.#socketPath);
    const session = http2.connect("http://localhost", {
      createConnection: () => socket,
      settings: { initialWindowSize: WINDOW_BYTES, enablePush: false },
    });
    const forget = () => {
      this.#session = undefined;
    };
    session.on("error", forget);
    session.on("close", forget);
    session.on("goaway", forget);
    session.on("connect", () => {
      if (!session.destroyed) session.setLocalWindowSize(WINDOW_BYTES);
    });
    return session;
  }
}

async function* one<T>(value: T): AsyncGenerator<T, void, undefined> {
  yield value;
}

function connectSocket(path: string): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ path });
    socket.once("error", (error: NodeJS.ErrnoException) => reject(connectError(path, error)));
    socket.once("connect", () => {
      socket.removeAllListeners("error");
      resolve(socket);
    });
  });
}

function connectError(path: string, error: NodeJS.ErrnoException): BaseError {
  if (error.code === "EACCES" || error.code === "EPERM") {
    return new PermissionDeniedError(
      `connect to ${path}: permission denied; the daemon's socket is for the user that runs it, and for the group of its --socket-group`,
      { cause: error },
    );
  }
  if (error.code === "ENOENT" || error.code === "ECONNREFUSED") {
    return new UnavailableError(
      `daemon not running at ${path}: start it with "varve daemon", or name another with --socket or VARVE_SOCKET`,
      { cause: error, details: { notRunning: true } },
    );
  }
  return new UnavailableError(`connect to ${path}: ${error.message}`, { cause: error });
}

/** One HTTP/2 stream: sends requests, yields response messages, turns every way to fail into ours. */
class Call {
  readonly #stream: ClientHttp2Stream;
  readonly #method: string;
  readonly #options: CallOptions;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #abort = (): void => this.#fail(new CancelledError(`${this.#method}: cancelled`));
  #trailers: Record<string, unknown> = {};
  #failure: unknown;

  constructor(
    session: ClientHttp2Session,
    method: DescMethod,
    options: CallOptions & { readonly requestId: string },
  ) {
    this.#method = method.name;
    this.#options = options;
    this.#stream = session.request({
      ":method": "POST",
      ":path": `/${method.parent.typeName}/${method.name}`,
      "content-type": "application/grpc+proto",
      te: "trailers",
      "varve-request-id": options.requestId,
      ...(options.quiet === true ? { "varve-quiet": "1" } : {}),
      ...(options.timeoutMs === undefined ? {} : { "grpc-timeout": `${options.timeoutMs}m` }),
    });
    // Trailers-only answers carry the status in the headers.
    this.#stream.on("response", (headers) => Object.assign(this.#trailers, headers));
    this.#stream.on("trailers", (trailers) => Object.assign(this.#trailers, trailers));
    // The iteration in messages() reports it; without a listener a late error would end the process.
    this.#stream.on("error", () => undefined);
    options.signal?.addEventListener("abort", this.#abort, { once: true });
    if (options.timeoutMs !== undefined) {
      const timeoutMs = options.timeoutMs;
      this.#timer = setTimeout(() => {
        this.#fail(new UnavailableError(`${this.#method}: no answer within ${timeoutMs} ms`));
      }, timeoutMs);
    }
  }

  /** Writes every request, then half-closes. Never rejects: failures end the call. */
  async send<T>(requests: AsyncIterable<T>, encode: (message: T) => Uint8Array): Promise<void> {
    try {
      for await (const request of requests) {
        // The daemon may answer (with an error, mostly) before it has read everything.
        if (!this.#stream.writable) return;
        if (!this.#stream.write(frameMessage(encode(request)))) await this.#drained();
      }
      this.#stream.end();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The response messages; throws what the status, the connection or the caller's abort says. */
  async *messages(): AsyncGenerator<Buffer, void, undefined> {
    const frames = new FrameReader();
    try {
      // Left alone at its end: destroyed, it would be reset (see end).
      const chunks = this.#stream.iterator({ destroyOnReturn: false });
      for await (const chunk of chunks) yield* frames.push(chunk as Buffer);
    } catch (error) {
      throw this.#errorOf(error);
    }
    const error = this.#failure ?? errorFromTrailers(this.#trailers, this.#method);
    if (error !== undefined) throw error;
    if (frames.pending) {
      throw new UnavailableError(`${this.#method}: the daemon stopped in the middle of a message`);
    }
  }

  /**
   * Releases everything; cancels the stream unless both sides have ended it. Those that have must not
   * be reset: servers close a connection with a thousand resets (nghttp2's stream reset rate limit).
   * Idempotent.
   */
  end(): void {
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#abort);
    const isOver = this.#stream.readableEnded && this.#stream.writableEnded;
    if (!this.#stream.closed && !isOver) this.#stream.close(http2.constants.NGHTTP2_CANCEL);
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#stream.close(http2.constants.NGHTTP2_CANCEL);
  }

  #errorOf(error: unknown): unknown {
    if (this.#failure !== undefined) return this.#failure;
    // A server may reset the stream after its trailers: the status is the truth then.
    const fromStatus =
      this.#trailers["grpc-status"] === undefined
        ? undefined
        : errorFromTrailers(this.#trailers, this.#method);
    if (fromStatus !== undefined) return fromStatus;
    if (error instanceof BaseError) return error;
    return new UnavailableError(
      `${this.#method}: the connection to the daemon broke: ${(error as Error).message}`,
      { cause: error },
    );
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#stream.off("drain", done);
        this.#stream.off("close", done);
        resolve();
      };
      this.#stream.on("drain", done);
      this.#stream.on("close", done);
    });
  }
}
