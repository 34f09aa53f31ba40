/** A client of containerd's snapshotter interface, by grpc-js, as containerd's own proxy client is by Go. */

import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import {
  type Info,
  type ListSnapshotsRequestSchema,
  Snapshots,
} from "../../../src/services/gen/containerd/services/snapshots/v1/snapshots_pb.js";

type Methods = typeof Snapshots.method;
type UnaryName = Exclude<keyof Methods, "list">;
type Input<K extends keyof Methods> = MessageInitShape<Methods[K]["input"]>;
type Output<K extends keyof Methods> = MessageShape<Methods[K]["output"]>;

const pathOf = (method: DescMethod) => `/${method.parent.typeName}/${method.name}`;

/** Calls on one connection; failures are grpc-js' errors, with the status in `code`. */
export class SnapshotsClient {
  readonly #client: Client;

  constructor(socket: string) {
    this.#client = new Client(`unix:${socket}`, credentials.createInsecure());
  }

  call<K extends UnaryName>(name: K, request: Input<K>): Promise<Output<K>> {
    const method: DescMethod = Snapshots.method[name];
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        pathOf(method),
        (message: MessageShape<typeof method.input>) =>
          Buffer.from(toBinary(method.input, message)),
        (bytes: Buffer) => fromBinary(method.output, bytes) as Output<K>,
        create(method.input, request as MessageInitShape<typeof method.input>),
        (error, response) => (error === null ? resolve(response!) : reject(error)),
      );
    });
  }

  /** Every snapshot that passes, in the order in which they came. */
  async list(...filters: string[]): Promise<Info[]> {
    const { input, output } = Snapshots.method.list;
    const stream = this.#client.makeServerStreamRequest(
      pathOf(Snapshots.method.list),
      (message: MessageShape<typeof ListSnapshotsRequestSchema>) =>
        Buffer.from(toBinary(input, message)),
      (bytes: Buffer) => fromBinary(output, bytes),
      create(input, { filters }),
    );
    const infos: Info[] = [];
    for await (const message of stream) infos.push(...(message as Output<"list">).info);
    return infos;
  }

  close(): void {
    this.#client.close();
  }
}

/** The status with which a call fails; undefined when it succeeds. */
export async function statusOf(call: Promise<unknown>): Promise<number | undefined> {
  return call.then(
    () => undefined,
    (error: ServiceError) => error.code,
  );
}
