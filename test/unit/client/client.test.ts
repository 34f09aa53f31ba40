import { createHash, randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { VarveClient } from "../../../src/client/client.js";
import type { Varve } from "../../../src/services/gen/varve/v1/varve_pb.js";
import type { CallContext, Handlers } from "../../../src/services/grpc-adapter.js";
import { NotFoundError } from "../../../src/system/errors.js";
import { startServer } from "./test-server.js";

const cleanups: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function connectTo(handlers: Partial<Handlers<typeof Varve>>) {
  const server = await startServer(handlers);
  const client = VarveClient.connect({ socket: server.socket });
  cleanups.push(server.close, () => client.close());
  return { client, server };
}

const aborted = (context: CallContext) =>
  new Promise<void>((resolve) => {
    context.signal.addEventListener("abort", () => resolve());
  });

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

describe("VarveClient", () => {
  it("calls a unary method", async () => {
    const { client } = await connectTo({
      tagImage: ({ source, target }) => ({ reference: `${source}→${target}` }),
    });
    const response = await client.tagImage({ source: "ä", target: "b" });
    expect(response.reference).toBe("ä→b");
  });

  it("says of a call that it is to be quiet", async () => {
    const { client } = await connectTo({
      tagImage: (_, { header }) => ({ reference: header("varve-quiet") ?? "" }),
    });
    const told = [{ quiet: true }, { quiet: false }, {}].map(async (options) => {
      return (await client.tagImage({ source: "a" }, options)).reference;
    });
    expect(await Promise.all(told)).toEqual(["1", "", ""]);
  });

  it("serves many calls at once over one connection", async () => {
    const { client } = await connectTo({
      tagImage: async ({ source }) => {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
        return { reference: source };
      },
    });
    const names = Array.from({ length: 100 }, (_, position) => `image-${position}`);
    const answers = await Promise.all(names.map((source) => client.tagImage({ source })));
    expect(answers.map((answer) => answer.reference)).toEqual(names);
  });

  it("serves more calls than a server lets be reset, one after the other", async () => {
    const { client } = await connectTo({ tagImage: ({ source }) => ({ reference: source }) });
    for (let count = 0; count < 1500; count++) await client.tagImage({ source: "a" });
  });

  it("rebuilds the daemon's error", async () => {
    const { client, server } = await connectTo({
      inspectView: () => {
        throw new NotFoundError('view "50% ä": not found');
      },
    });
    const error = await client.inspectView({ name: "x" }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(NotFoundError);
    expect(error).toMatchObject({ code: "NOT_FOUND", message: 'view "50% ä": not found' });
    expect(server.bugs).toEqual([]);
  });

  it("says of a method that the daemon does not have that it is unsupported", async () => {
    const { client } = await connectTo({});
    await expect(client.listImages()).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });

  it("reads a stream in order, whatever the sizes", async () => {
    const sizes = [0, 1, 5, 65_536, 16_384, 3_000_000, 1];
    const { client } = await connectTo({
      saveImages: async function* () {
        for (const size of sizes) yield { chunk: new Uint8Array(size).fill(size % 251) };
      },
    });
    const chunks = await collect(client.saveImages({ references: ["x"] }));
    expect(chunks.map(({ chunk }) => chunk.length)).toEqual(sizes);
    expect(chunks.every(({ chunk }) => chunk.every((byte) => byte === chunk.length % 251))).toBe(
      true,
    );
  });

  it("gets the messages before an error, then the error", async () => {
    const { client } = await connectTo({
      diffView: async function* () {
        yield { changes: [] };
        throw new NotFoundError("gone");
      },
    });
    const seen: unknown[] = [];
    const read = async () => {
      for await (const message of client.diffView({ name: "x" })) seen.push(message);
    };
    await expect(read()).rejects.toMatchObject({ code: "NOT_FOUND", message: "gone" });
    expect(seen).toHaveLength(1);
  });

  it("sends an archive's bytes unchanged", async () => {
    const archive = randomBytes(5_000_001);
    const { client } = await connectTo({
      loadImages: async function* (requests) {
        const hash = createHash("sha256");
        let path = "unset";
        for await (const request of requests) {
          if (request.options !== undefined) path = request.options.path;
          hash.update(request.chunk);
        }
        yield { loaded: { reference: path, digest: hash.digest("hex") } };
      },
    });
    async function* pieces() {
      for (let start = 0; start < archive.length; start += 1_300_000) {
        yield archive.subarray(start, start + 1_300_000);
      }
    }
    const [response] = await collect(client.loadImages({ path: "" }, pieces()));
    expect(response?.loaded).toMatchObject({
      reference: "",
      digest: createHash("sha256").update(archive).digest("hex"),
    });
  });

  it("does not read an archive faster than the daemon takes it", async () => {
    let sent = 0;
    const { client } = await connectTo({
      loadImages: async function* (requests, context) {
        const iterator = requests[Symbol.asyncIterator]();
        await iterator.next();
        yield { progress: { id: "started" } };
        await aborted(context);
      },
    });
    async function* endless() {
      for (;;) {
        sent += 1_000_000;
        yield new Uint8Array(1_000_000);
      }
    }
    for await (const _ of client.loadImages({ path: "" }, endless())) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      break;
    }
    expect(sent).toBeLessThan(50_000_000);
  });

  it("reports an error that comes before the archive is sent", async () => {
    const { client } = await connectTo({
      // biome-ignore lint/correctness/useYield: fails before anything
      loadImages: async function* () {
        throw new NotFoundError("no");
      },
    });
    async function* endless() {
      for (;;) yield new Uint8Array(100_000);
    }
    await expect(collect(client.loadImages({}, endless()))).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
  });

  it("passes on what the source of an archive throws", async () => {
    const { client } = await connectTo({
      loadImages: async function* (requests) {
        for await (const _ of requests);
        yield {};
      },
    });
    // biome-ignore lint/correctness/useYield: fails before anything
    async function* broken(): AsyncGenerator<Uint8Array> {
      throw new NotFoundError("input ended");
    }
    await expect(collect(client.loadImages({}, broken()))).rejects.toThrow("input ended");
  });

  it("tells the daemon when the reader leaves early", async () => {
    let cancelled: () => void = () => undefined;
    const seen = new Promise<void>((resolve) => {
      cancelled = resolve;
    });
    const { client } = await connectTo({
      unpackImage: async function* (_, context) {
        void aborted(context).then(cancelled);
        yield { chainId: "1" };
        await aborted(context);
      },
    });
    for await (const _ of client.unpackImage({ reference: "x" })) break;
    await seen;
  });

  it("ends with CANCELLED when the caller aborts, and tells the daemon", async () => {
    let cancelled: () => void = () => undefined;
    const seen = new Promise<void>((resolve) => {
      cancelled = resolve;
    });
    const { client } = await connectTo({
      inspectView: async (_, context) => {
        await aborted(context);
        cancelled();
        return {};
      },
    });
    const controller = new AbortController();
    const call = client.inspectView({ name: "x" }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    await expect(call).rejects.toMatchObject({ code: "CANCELLED" });
    await seen;
  });

  it("does not start a call whose signal has fired", async () => {
    const { client } = await connectTo({ version: () => ({}) });
    const call = client.version({ signal: AbortSignal.abort() });
    await expect(call).rejects.toMatchObject({ code: "CANCELLED" });
  });

  it("gives up after its deadline", async () => {
    const { client } = await connectTo({
      inspectView: async (_, context) => {
        await aborted(context);
        return {};
      },
    });
    const call = client.inspectView({ name: "x" }, { timeoutMs: 50 });
    await expect(call).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  it("logs a handler's bug and answers with an internal error", async () => {
    const { client, server } = await connectTo({
      version: () => {
        throw new TypeError("x is not a function");
      },
    });
    await expect(client.version()).rejects.toMatchObject({ code: "SYSCALL" });
    expect(server.bugs).toEqual([expect.any(TypeError)]);
  });

  it("refuses a message above the limit", async () => {
    const { client } = await connectTo({ tagImage: () => ({}) });
    const call = client.tagImage({ source: "x".repeat(17 * 1024 * 1024) });
    await expect(call).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
  });

  it("fails calls under way when the daemon dies, and connects again to the next one", async () => {
    const { client, server } = await connectTo({
      version: () => ({ version: "1" }),
      inspectView: async (_, context) => {
        await aborted(context);
        return {};
      },
    });
    expect((await client.version()).version).toBe("1");
    const call = client.inspectView({ name: "x" });
    setTimeout(() => void server.close(), 50);
    await expect(call).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await expect(client.version()).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  it("says that no daemon runs, and how to start one", async () => {
    const directory = mkdtempSync(path.join(os.tmpdir(), "varve-none-"));
    cleanups.push(() => rmSync(directory, { recursive: true }));
    const socket = path.join(directory, "none.sock");
    const client = VarveClient.connect({ socket });
    await expect(client.version()).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringMatching(/daemon not running at .*none\.sock.*varve daemon/),
    });
    writeFileSync(socket, "");
    chmodSync(socket, 0o600);
    await expect(client.version()).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });
});
