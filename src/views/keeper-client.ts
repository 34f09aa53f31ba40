/**
 * Talks to varve-keeper, the process that holds the connections of mounted views so that they outlive
 * this one. native/keeper/main.cc has the messages.
 */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { addonPath, sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { ECONNREFUSED, EIO, ENOENT, syscallError } from "../system/errno.js";
import { UnavailableError } from "../system/errors.js";
import type { DescriptorStore } from "./descriptor-store.js";

const MESSAGE_BYTES = 1 << 16;
const START_ATTEMPTS = 100;
const START_PAUSE_MS = 5;
const EQUALS = 0x3d;
const F = 0x46;

/** One connection. Its calls block for some microseconds. */
export class KeeperClient implements DescriptorStore {
  readonly #socket: number;
  readonly #buffer = Buffer.alloc(MESSAGE_BYTES);
  readonly #descriptor = new Float64Array(1);

  private constructor(socket: number) {
    this.#socket = socket;
  }

  /** The keeper that listens at `socketPath`; undefined when none does. @throws SyscallError */
  static connect(socketPath: string): KeeperClient | undefined {
    const socket = sys.connectPackets(toBytes(socketPath));
    if (socket >= 0) return new KeeperClient(socket);
    if (socket === -ENOENT || socket === -ECONNREFUSED) return undefined;
    throw syscallError(socket, "connect", socketPath);
  }

  /** Starts a keeper and connects to it. @throws UnavailableError it is not installed, or does not answer */
  static async start(socketPath: string): Promise<KeeperClient> {
    const program = path.join(path.dirname(addonPath), "varve-keeper");
    if (!existsSync(program)) {
      throw new UnavailableError(`start ${program}: it is missing; run "npm run build:native"`);
    }
    // Its log lines go where ours go.
    const keeper = spawn(program, [socketPath], {
      detached: true,
      stdio: ["ignore", "ignore", "inherit"],
      cwd: "/",
      // The daemons that it starts are to get past the point where this one is to die.
      env: { ...process.env, VARVE_FAULT: undefined },
    });
    keeper.on("error", () => undefined);
    keeper.unref();
    for (let attempt = 0; attempt < START_ATTEMPTS; attempt++) {
      await sleep(START_PAUSE_MS);
      const client = KeeperClient.connect(socketPath);
      if (client !== undefined) return client;
    }
    throw new UnavailableError(`start ${program}: it does not answer on ${socketPath}`);
  }

  introduce(command: readonly string[]): void {
    this.#call(`H${command.map((word) => `${word}\0`).join("")}`);
  }

  put(name: string, descriptor: number): void {
    this.#call(`P${name}`, descriptor);
  }

  drop(name: string): void {
    this.#call(`D${name}`);
  }

  sayGoodbye(): void {
    this.#call("B");
  }

  isAlive(): boolean {
    try {
      this.#call("N");
      return true;
    } catch {
      return false;
    }
  }

  all(): Map<string, number> {
    const found = new Map<string, number>();
    this.#call("G", -1, (name, descriptor) => found.set(name, descriptor));
    return found;
  }

  close(): void {
    sys.close(this.#socket);
  }

  #call(
    message: string,
    descriptor = -1,
    onDescriptor: (name: string, descriptor: number) => void = () => undefined,
  ): void {
    const sent = sys.sendPacket(this.#socket, Buffer.from(message), descriptor);
    if (sent < 0) throw syscallError(sent, "sendmsg", "varve-keeper");
    for (;;) {
      const length = sys.receivePacket(this.#socket, this.#buffer, this.#descriptor);
      // 0: it ended.
      if (length <= 0) throw syscallError(length || -EIO, "recvmsg", "varve-keeper");
      if (this.#buffer[0] === EQUALS) return;
      const text = this.#buffer.toString("utf8", 1, length);
      if (this.#buffer[0] !== F) throw syscallError(-Number(text), message[0]!, "varve-keeper");
      onDescriptor(text, this.#descriptor[0]!);
    }
  }
}
