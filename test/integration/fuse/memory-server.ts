/** A process that serves memory file systems on the targets named in its arguments, led over IPC. */

import { fileURLToPath } from "node:url";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { FuseSession } from "../../../src/fuse/session.js";
import type { ByteString } from "../../../src/system/bytes.js";
import { BaseError } from "../../../src/system/errors.js";
import { MemoryFileSystem } from "./memory-file-system.js";

/** What a test may ask; `target` picks the mount. */
export type ServerCommand =
  | { kind: "report"; target: string }
  | { kind: "unmount"; target: string; force: boolean }
  | { kind: "close"; target: string }
  | { kind: "holdSyncs"; target: string }
  | { kind: "releaseSyncs"; target: string; result: number }
  | { kind: "overwrite"; target: string; name: string; text: string }
  | { kind: "plant"; target: string; name: string; expireOnly: boolean }
  | { kind: "mount"; target: string; readOnly: boolean; privileged: boolean }
  | { kind: "events" }
  /** Serves the target from a worker thread. */
  | { kind: "startThread"; target: string }
  /** Terminates that thread, whatever it does. */
  | { kind: "terminateThread"; target: string };

/** The answer to a command, by its number. */
export interface ServerAnswer {
  id: number;
  value?: unknown;
  error?: { code: string; message: string };
}

interface Mounted {
  session: FuseSession;
  fileSystem: MemoryFileSystem;
}

const mounts = new Map<string, Mounted>();
const threads = new Map<string, Worker>();
const warnings: string[] = [];
const ends: string[] = [];

function mount(target: string, readOnly: boolean, privileged: boolean): void {
  const fileSystem = new MemoryFileSystem();
  const session = FuseSession.mount({
    target,
    fileSystem,
    readOnly,
    privileged,
    source: "memory, for a test",
    log: {
      warn: (message, error) => {
        warnings.push(`${message}: ${error instanceof Error ? error.stack : String(error)}`);
      },
    },
    onEnd: () => ends.push(target),
  });
  fileSystem.onFaultClose = () => session.close();
  mounts.set(target, { session, fileSystem });
}

async function startThread(target: string): Promise<void> {
  const thread = new Worker(fileURLToPath(import.meta.url), { argv: [target] });
  threads.set(target, thread);
  await new Promise((resolve, reject) => {
    thread.once("message", resolve);
    thread.once("error", reject);
  });
}

async function obey(command: ServerCommand): Promise<unknown> {
  if (command.kind === "events") return { warnings, ends };
  if (command.kind === "startThread") return startThread(command.target);
  if (command.kind === "terminateThread") return threads.get(command.target)?.terminate();
  if (command.kind === "mount") return mount(command.target, command.readOnly, command.privileged);
  const mounted = mounts.get(command.target);
  if (mounted === undefined) throw new Error(`nothing mounted on ${command.target}`);
  const { fileSystem, session } = mounted;
  switch (command.kind) {
    case "report":
      return fileSystem.report();
    case "unmount":
      return session.unmount(command.force);
    case "close":
      return session.close();
    case "holdSyncs":
      fileSystem.holdSyncs = true;
      return undefined;
    case "releaseSyncs":
      return fileSystem.releaseSyncs(command.result);
    case "overwrite": {
      const node = fileSystem.overwrite(command.name as ByteString, command.text);
      return session.notifier.invalidateInode(node, 0, 0);
    }
    case "plant":
      fileSystem.plant(command.name as ByteString);
      return session.notifier.invalidateEntry(1, command.name as ByteString, command.expireOnly);
  }
}

function listen(): void {
  process.on("message", (message: { id: number; command: ServerCommand }) => {
    const { id, command } = message;
    obey(command).then(
      (value) => process.send?.({ id, value }),
      (error: unknown) => {
        const code = error instanceof BaseError ? error.code : "UNKNOWN";
        const text = error instanceof Error ? error.message : String(error);
        process.send?.({ id, error: { code, message: text } });
      },
    );
  });
}

for (const target of process.argv.slice(2)) mount(target, false, true);
if (isMainThread) {
  listen();
  process.send?.({ id: 0 });
} else {
  parentPort?.postMessage("mounted");
}
