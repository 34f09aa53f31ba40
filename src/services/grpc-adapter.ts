/**
 * Serves protobuf-es services with grpc-js: handlers are plain functions over messages and async
 * iterables; streams, backpressure, cancellation and errors are dealt with here once.
 */

import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  Metadata,
  MethodDefinition,
  Server,
  ServerDuplexStream,
  ServerWritableStream,
  UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { InvalidArgumentError } from "../system/errors.js";
import { forRequest, REQUEST_ID_HEADER } from "../system/request-context.js";
import { type Caller, STRANGER } from "./caller.js";
import { toServiceError } from "./errors.js";
import { Status } from "./status.js";

/** What a handler knows of its call. */
export interface CallContext {
  /** Aborted when the client cancelled or went away, or its deadline passed. */
  readonly signal: AbortSignal;
  readonly caller: Caller;
  /** A field of the request's metadata. */
  header(name: string): string | undefined;
}

type Request<M> = M extends { input: infer I extends DescMessage } ? MessageShape<I> : never;
type Response<M> = M extends { output: infer O extends DescMessage } ? MessageInitShape<O> : never;

type Handler<M> = M extends { methodKind: "unary" }
  ? (request: Request<M>, context: CallContext) => Promise<Response<M>> | Response<M>
  : M extends { methodKind: "server_streaming" }
    ? (request: Request<M>, context: CallContext) => AsyncIterable<Response<M>>
    : (requests: AsyncIterable<Request<M>>, context: CallContext) => AsyncIterable<Response<M>>;

/** One handler for each method of a service. */
export type Handlers<S extends DescService> = { [K in keyof S["method"]]: Handler<S["method"][K]> };

type Message = MessageShape<DescMessage>;
type Init = MessageInitShape<DescMessage>;
type LogBug = (error: unknown) => void;

/** What serving needs beside the handlers. */
export interface ServeOptions {
  /** Gets what handlers throw that is none of our errors. */
  readonly logBug: LogBug;
  /** Gets a promise for each call, which resolves when its handler has ended; it never rejects. */
  readonly onCall?: ((ended: Promise<void>) => void) | undefined;
  /** Who is at the address that grpc-js knows of a call's peer; absent: nobody whom we know. */
  readonly callerOf?: ((address: string) => Caller) | undefined;
  /** May refuse a call by an error of ours; the returned function is called at the call's end. */
  readonly admit?: ((caller: Caller, method: string) => () => void) | undefined;
  /** A call of a method begins; the returned function gets how it ended: "OK" or a status' name. */
  readonly begin?: ((method: string, caller: Caller) => (code: string) => void) | undefined;
}

/** Adds a service to a server. */
export function addService<S extends DescService>(
  server: Server,
  service: S,
  handlers: Handlers<S>,
  options: ServeOptions,
): void {
  const definition: Record<string, MethodDefinition<Message, Init>> = {};
  const implementation: UntypedServiceImplementation = {};
  for (const method of service.methods) {
    const name = method.localName;
    definition[name] = describeMethod(method);
    implementation[name] = implement(method, (handlers as Record<string, unknown>)[name], options);
  }
  server.addService(definition, implementation);
}

/**
 * Decodes what a client sent.
 *
 * @throws InvalidArgumentError these bytes are no such message; grpc-js passes that on as INTERNAL
 */
export function decodeRequest(type: DescMessage, bytes: Uint8Array): Message {
  try {
    return fromBinary(type, bytes);
  } catch (error) {
    // The decoder throws errors of several kinds, TypeErrors among them.
    const reason = error instanceof Error ? error.message : String(error);
    throw new InvalidArgumentError(`decode request: no ${type.typeName}: ${reason}`);
  }
}

function describeMethod(method: DescMethod): MethodDefinition<Message, Init> {
  const { input, output, methodKind } = method;
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    originalName: method.localName,
    requestStream: methodKind === "client_streaming" || methodKind === "bidi_streaming",
    responseStream: methodKind === "server_streaming" || methodKind === "bidi_streaming",
    requestSerialize: (message) => Buffer.from(toBinary(input, message)),
    requestDeserialize: (bytes) => decodeRequest(input, bytes),
    responseSerialize: (message) => Buffer.from(toBinary(output, create(output, message))),
    responseDeserialize: (bytes) => fromBinary(output, bytes),
  };
}

function implement(method: DescMethod, given: unknown, options: ServeOptions) {
  const run = runner(method, options);
  const handler = admitted(method, given, options);
  if (method.methodKind === "unary") {
    return unary(
      handler as (request: Message, context: CallContext) => Promise<Init>,
      options,
      run,
    );
  }
  if (method.methodKind === "server_streaming") {
    return serverStreaming(
      handler as (request: Message, context: CallContext) => AsyncIterable<Init>,
      options,
      run,
    );
  }
  return bidiStreaming(
    handler as (requests: AsyncIterable<Message>, context: CallContext) => AsyncIterable<Init>,
    options,
    run,
  );
}

type AnyHandler = (input: unknown, context: CallContext) => unknown;

/** The handler, for calls that are admitted. */
function admitted(method: DescMethod, handler: unknown, { admit }: ServeOptions): unknown {
  if (admit === undefined) return handler;
  const work = handler as AnyHandler;
  if (method.methodKind === "unary") {
    return async (input: unknown, context: CallContext) => {
      const leave = admit(context.caller, method.name);
      try {
        return await work(input, context);
      } finally {
        leave();
      }
    };
  }
  return async function* (input: unknown, context: CallContext) {
    const leave = admit(context.caller, method.name);
    try {
      yield* work(input, context) as AsyncIterable<unknown>;
    } finally {
      leave();
    }
  };
}

/** Runs a call's work, which answers by itself and returns the status, and tells those who watch. */
type Run = (context: CallContext, work: () => Promise<number>) => void;

function runner(method: DescMethod, { onCall, begin }: ServeOptions): Run {
  return (context, work) => {
    const end = begin?.(method.name, context.caller);
    const { caller } = context;
    const id = context.header(REQUEST_ID_HEADER);
    const who = caller === STRANGER ? undefined : caller;
    const ended = forRequest({ id, method: method.name, who }, async () => {
      const status = await work();
      end?.(nameOfStatus(status));
    });
    onCall?.(ended);
  };
}

function nameOfStatus(status: number): string {
  return Object.entries(Status).find(([, number]) => number === status)?.[0] ?? String(status);
}

interface Cancellable {
  readonly cancelled: boolean;
  readonly metadata: Metadata;
  getPeer(): string;
  on(event: "cancelled", listener: () => void): unknown;
}

function contextOf(call: Cancellable, { callerOf }: ServeOptions): CallContext {
  const controller = new AbortController();
  call.on("cancelled", () => controller.abort());
  if (call.cancelled) controller.abort();
  return {
    signal: controller.signal,
    caller: callerOf?.(peerOf(call)) ?? STRANGER,
    header: (name) => call.metadata.get(name)[0]?.toString(),
  };
}

function peerOf(call: Cancellable): string {
  try {
    return call.getPeer();
  } catch {
    // Node throws when the connection has been closed meanwhile.
    return "";
  }
}

function unary(
  handler: (request: Message, context: CallContext) => Promise<Init> | Init,
  options: ServeOptions,
  run: Run,
): handleUnaryCall<Message, Init> {
  return (call, callback) => {
    const context = contextOf(call, options);
    run(context, async () => {
      try {
        callback(null, await handler(call.request, context));
        return Status.OK;
      } catch (error) {
        const failure = toServiceError(error, options.logBug);
        callback(failure);
        return failure.code;
      }
    });
  };
}

function serverStreaming(
  handler: (request: Message, context: CallContext) => AsyncIterable<Init>,
  options: ServeOptions,
  run: Run,
): handleServerStreamingCall<Message, Init> {
  return (call) => {
    const context = contextOf(call, options);
    const { signal } = context;
    run(context, () => respond(call, () => handler(call.request, context), signal, options.logBug));
  };
}

function bidiStreaming(
  handler: (requests: AsyncIterable<Message>, context: CallContext) => AsyncIterable<Init>,
  options: ServeOptions,
  run: Run,
): handleBidiStreamingCall<Message, Init> {
  return (call) => {
    const context = contextOf(call, options);
    const { signal } = context;
    run(context, () =>
      respond(call, () => handler(requestsOf(call), context), signal, options.logBug),
    );
  };
}

type ResponseStream = ServerWritableStream<Message, Init> | ServerDuplexStream<Message, Init>;

/** Requests one by one. Leaving early must not destroy the call, which still has to be answered. */
async function* requestsOf(call: ServerDuplexStream<Message, Init>): AsyncGenerator<Message> {
  for await (const message of call.iterator({ destroyOnReturn: false })) yield message as Message;
}

/** Writes what the handler yields, as fast as the client reads. @returns the call's status */
async function respond(
  call: ResponseStream,
  start: () => AsyncIterable<Init>,
  signal: AbortSignal,
  logBug: LogBug,
): Promise<number> {
  // A client that left makes writes fail; the cancellation says the same.
  call.on("error", () => undefined);
  try {
    for await (const message of start()) {
      if (signal.aborted) return Status.CANCELLED;
      if (!call.write(message)) await drained(call, signal);
    }
    call.end();
    return Status.OK;
  } catch (error) {
    if (signal.aborted) return Status.CANCELLED;
    const failure = toServiceError(error, logBug);
    call.emit("error", failure);
    return failure.code;
  }
}

function drained(call: ResponseStream, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      call.off("drain", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    call.on("drain", done);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
