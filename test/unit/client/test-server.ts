/** A grpc-js server with chosen handlers of varve.v1 on a socket of its own. */

import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { Varve } from "../../../src/services/gen/varve/v1/varve_pb.js";
import { addService, type Handlers } from "../../../src/services/grpc-adapter.js";
import { MAX_MESSAGE_BYTES } from "../../../src/services/status.js";
import { UnsupportedError } from "../../../src/system/errors.js";

export interface TestServer {
  readonly socket: string;
  /** What handlers threw that is no error of ours. */
  readonly bugs: unknown[];
  close(): Promise<void>;
}

export async function startServer(handlers: Partial<Handlers<typeof Varve>>): Promise<TestServer> {
  const directory = mkdtempSync(path.join(os.tmpdir(), "varve-rpc-"));
  const socket = path.join(directory, "s");
  const grpc = new Server({ "grpc.max_receive_message_length": MAX_MESSAGE_BYTES });
  const bugs: unknown[] = [];
  const missing = () => {
    throw new UnsupportedError("no such handler in this test");
  };
  const all = Object.fromEntries(Varve.methods.map((method) => [method.localName, missing]));
  const complete = { ...all, ...handlers } as Handlers<typeof Varve>;
  addService(grpc, Varve, complete, { logBug: (bug) => bugs.push(bug) });
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = net.createServer((connection) => injector.injectConnection(connection));
  await new Promise<void>((resolve) => listener.listen(socket, resolve));
  return {
    socket,
    bugs,
    close: async () => {
      grpc.forceShutdown();
      await new Promise((resolve) => listener.close(resolve));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
