/**
 * A TCP line to a server that drops, delays, truncates, corrupts and reorders at random, the same way
 * for the same seed as far as the traffic is the same.
 */

import { once } from "node:events";
import net from "node:net";
import { Transform, type TransformCallback } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

/** Whole numbers from 0 to below `below`. */
export type Random = (below: number) => number;

/** The same numbers for the same seed. */
export function makeRandom(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

type Fault = "none" | "drop" | "truncate" | "delay" | "corrupt" | "reorder";
/** Breaks are more frequent than damage, which no protocol mends. */
const COURSE: readonly Fault[] = [
  ...(["none", "none", "none", "drop", "drop", "truncate", "truncate"] as const),
  ...(["delay", "delay", "corrupt", "reorder"] as const),
];
/** One connection in so many is refused. */
const REFUSED = 10;
/** Each fault comes after at most so many bytes since the last one: of answers, and of requests. */
const REACH = { answer: 3_000_000, request: 20_000 };
/** As many proxies do. It also ends what a damaged length would make wait for ever. */
const IDLE_MS = 1_000;
const MAX_DELAY_MS = 150;

/** The line; dispose of it. */
export class UnreliableLine {
  /** How often there was each fault. */
  readonly faults = new Map<string, number>();
  readonly #random: Random;
  readonly #port: number;
  readonly #sockets = new Set<net.Socket>();
  readonly #server = net.createServer((client) => this.#carry(client));

  private constructor(port: number, random: Random) {
    this.#port = port;
    this.#random = random;
  }

  /** @param port of the server, on 127.0.0.1 */
  static async start(port: number, random: Random): Promise<UnreliableLine> {
    const line = new UnreliableLine(port, random);
    line.#server.listen(0, "127.0.0.1");
    await once(line.#server, "listening");
    return line;
  }

  /** Where to connect to. */
  get domain(): string {
    return `127.0.0.1:${(this.#server.address() as net.AddressInfo).port}`;
  }

  async dispose(): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await once(this.#server, "close");
  }

  #count(fault: string): void {
    this.faults.set(fault, (this.faults.get(fault) ?? 0) + 1);
  }

  #carry(client: net.Socket): void {
    const server = net.connect({ port: this.#port, host: "127.0.0.1" });
    const end = () => {
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", end);
    }
    client.on("close", end);
    client.setTimeout(IDLE_MS, end);
    if (this.#random(REFUSED) === 0) {
      this.#count("refuse");
      end();
      return;
    }
    const spoiler = (reach: number) =>
      new Spoiler({ reach, random: this.#random, end, count: (fault) => this.#count(fault) });
    client.pipe(spoiler(REACH.request)).pipe(server);
    server.pipe(spoiler(REACH.answer)).pipe(client);
  }
}

interface SpoilerOptions {
  readonly reach: number;
  readonly random: Random;
  /** Breaks the connection. */
  readonly end: () => void;
  readonly count: (fault: Fault) => void;
}

/** One direction: bytes, and now and then a fault. */
class Spoiler extends Transform {
  readonly #o: SpoilerOptions;
  #left = 0;
  #fault: Fault = "none";
  /** What comes after the next chunk. */
  #held: Buffer | undefined;
  /** Nothing more comes out. */
  #isCut = false;

  constructor(options: SpoilerOptions) {
    super();
    this.#o = options;
    this.#choose();
  }

  override _transform(chunk: Buffer, _: BufferEncoding, done: TransformCallback): void {
    this.#pass(chunk).then(
      () => done(),
      () => this.#o.end(),
    );
  }

  override _flush(done: TransformCallback): void {
    if (this.#held !== undefined) this.push(this.#held);
    done();
  }

  #choose(): void {
    const { random, reach } = this.#o;
    this.#fault = COURSE[random(COURSE.length)]!;
    // Many near the beginning, where the headers are.
    this.#left = random(random(2) === 0 ? reach / 100 : reach);
  }

  async #pass(chunk: Buffer): Promise<void> {
    if (this.#isCut) return;
    if (this.#held !== undefined) {
      this.push(chunk);
      this.push(this.#held);
      this.#held = undefined;
      return;
    }
    const at = this.#left;
    this.#left -= chunk.length;
    if (this.#left > 0) {
      this.push(chunk);
      return;
    }
    const fault = this.#fault;
    this.#o.count(fault);
    this.#choose();
    await this.#spoil(fault, chunk, Math.min(at, chunk.length - 1));
  }

  /** @param at where in the chunk it begins */
  async #spoil(fault: Fault, chunk: Buffer, at: number): Promise<void> {
    const { random, end } = this.#o;
    if (fault === "drop") end();
    else if (fault === "truncate") {
      this.push(chunk.subarray(0, at));
      this.push(null);
      this.#isCut = true;
    } else if (fault === "reorder") {
      this.#held = chunk.subarray(at);
      this.push(chunk.subarray(0, at));
    } else if (fault === "corrupt") {
      const spoilt = Buffer.from(chunk);
      spoilt[at]! ^= 1 << random(8);
      this.push(spoilt);
    } else {
      if (fault === "delay") await sleep(random(MAX_DELAY_MS));
      this.push(chunk);
    }
  }
}
