/** Calls other programs' gRPC services on Unix sockets, over the messages that buf generates. */

import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Client, credentials, type CallOptions as GrpcCallOptions, Metadata } from "@grpc/grpc-js";
import { MAX_MESSAGE_BYTES } from "./status.js";

/** What goes with a call. */
export interface CallOptions {
  /** gRPC metadata. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Cancels the call. */
  readonly signal?: AbortSignal | undefined;
  /** The server is told of it, too. */
  readonly deadline?: Date;
}

type Input<M extends { input: DescMessage }> = MessageInitShape<M["input"]>;
type Output<M extends { output: DescMessage }> = MessageShape<M["output"]>;

/** A connection that is made when it is needed, and made again when it broke. */
export class GrpcClient {
  readonly #client: Client;

  /** @param socket path of the Unix socket */
  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc.enable_channelz": 0,
      // A server that comes back is found soon, as by containerd's clients.
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 3000,
      // Each has its own connection: another client of the same socket must not close it.
      "grpc.use_local_subchannel_pool": 1,
    });
  }

  /** One request, one answer. @throws grpc-js' ServiceError, with the status in `code` */
  unary<M extends DescMethodUnary>(
    method: M,
    request: Input<M>,
    options: CallOptions = {},
  ): Promise<Output<M>> {
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        pathOf(method),
        encoderOf(method),
        decoderOf(method),
        create(method.input, request),
        metadataOf(options),
        callOptions(options),
        (error, answer) => (error === null ? resolve(answer as Output<M>) : reject(error)),
      );
      onAbort(options.signal, call);
    });
  }

  /** One request, many answers. Leaving the loop early cancels the call. @throws as `unary` */
  async *receive<M extends DescMethodServerStreaming>(
    method: M,
    request: Input<M>,
    options: CallOptions = {},
  ): AsyncGenerator<Output<M>> {
    const call = this.#client.makeServerStreamRequest(
      pathOf(method),
      encoderOf(method),
      decoderOf(method),
      create(method.input, request),
      metadataOf(options),
      callOptions(options),
    );
    onAbort(options.signal, call);
    try {
      for await (const answer of call) yield answer as Output<M>;
    } finally {
      call.cancel();
    }
  }

  /** Sends requests as fast as the server takes them. @returns its answers @throws as `unary` */
  async exchange<M extends DescMethodBiDiStreaming>(
    method: M,
    requests: AsyncIterable<Input<M>>,
    options: CallOptions = {},
  ): Promise<Output<M>[]> {
    const call = this.#client.makeBidiStreamRequest(
      pathOf(method),
      encoderOf(method),
      decoderOf(method),
      metadataOf(options),
      callOptions(options),
    );
    onAbort(options.signal, call);
    const answers: Output<M>[] = [];
    const answered = new Promise<void>((resolve, reject) => {
      call.on("data", (answer) => answers.push(answer as Output<M>));
      call.on("end", resolve);
      call.on("error", reject);
    });
    // The server may refuse while we still send; `answered` says so in the end.
    const failed = answered.then(
      () => true,
      () => true,
    );
    try {
      for await (const request of requests) {
        if (call.write(create(method.input, request))) continue;
        const drained = new Promise<boolean>((resolve) => call.once("drain", () => resolve(false)));
        if (await Promise.race([drained, failed])) break;
      }
      call.end();
    } catch (error) {
      call.cancel();
      await failed;
      throw error;
    }
    await answered;
    return answers;
  }

  close(): void {
    this.#client.close();
  }
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function encoderOf({ input }: DescMethod) {
  return (message: MessageShape<DescMessage>) => Buffer.from(toBinary(input, message));
}

function decoderOf({ output }: DescMethod) {
  return (bytes: Buffer) => fromBinary(output, bytes);
}

function metadataOf({ headers = {} }: CallOptions): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return metadata;
}

function callOptions({ deadline }: CallOptions): GrpcCallOptions {
  return deadline === undefined ? {} : { deadline };
}

function onAbort(signal: AbortSignal | undefined, call: { cancel(): void }): void {
  if (signal?.aborted === true) call.cancel();
  signal?.addEventListener("abort", () => call.cancel(), { once: true });
}
