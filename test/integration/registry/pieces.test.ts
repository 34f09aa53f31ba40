/** Large blobs over several connections. */

import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { codeOf, FetchScene } from "./fetch-scene.js";

const MIB = 1 << 20;
const body = randomBytes(41 * MIB + 12_345);

let scene: FetchScene;
beforeEach(async () => {
  scene = await FetchScene.start();
});
afterEach(() => scene.dispose());

const addBlob = () => scene.fake.addBlob(body);
const rangeOf = (request: IncomingMessage) =>
  /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");

/** Calls `answer` for requests of parts beyond the first one; see `Intercept`. */
function onLaterParts(
  answer: (start: number, request: IncomingMessage, out: ServerResponse) => boolean,
) {
  scene.fake.intercept = (request, out) => {
    const start = Number(rangeOf(request)?.[1] ?? 0);
    return start > 0 && answer(start, request, out);
  };
}

describe("a large blob", () => {
  it("comes in parts, several at a time, and none twice", async () => {
    const blob = addBlob();
    const held = new Set<() => void>();
    let most = 0;
    // Answers when three are asked for at once, or nobody else comes.
    onLaterParts((_, request, out) => {
      const release = () => {
        held.delete(release);
        scene.fake.serve(request, out);
      };
      held.add(release);
      most = Math.max(most, held.size);
      setTimeout(release, 30);
      return true;
    });
    const seen: number[] = [];
    await scene.fetch(blob, {
      onProgress: ({ action, current }) => action === "downloading" && seen.push(current),
    });
    expect(scene.stored(blob).equals(body)).toBe(true);
    expect(most).toBeGreaterThanOrEqual(3);
    const starts = scene.blobRequests().map((one) => Number(/bytes=(\d+)-/.exec(one)?.[1]));
    expect(new Set(starts).size).toBe(starts.length);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen.at(-1)).toBe(body.length);
  });

  it("comes in one body from a server without ranges", async () => {
    const blob = addBlob();
    scene.misbehave(
      99,
      (out) => void out.writeHead(200, { "content-length": body.length }).end(body),
    );
    await scene.fetch(blob);
    expect(scene.stored(blob).equals(body)).toBe(true);
    expect(scene.blobRequests()).toHaveLength(1);
  });

  it("survives a server that stops to serve ranges", async () => {
    const blob = addBlob();
    onLaterParts((start, _, out) => {
      if (start < 8 * MIB) return false;
      out.writeHead(200, { "content-length": body.length }).end(body);
      return true;
    });
    await scene.fetch(blob);
    expect(scene.stored(blob).equals(body)).toBe(true);
  });

  it("goes on within a part whose connection broke", async () => {
    const blob = addBlob();
    const broken = new Set<number>();
    onLaterParts((start, request, out) => {
      if (broken.has(start) || start % (4 * MIB) !== 0) return false;
      broken.add(start);
      const last = Number(rangeOf(request)![2] || body.length - 1);
      out.writeHead(206, {
        "content-length": last + 1 - start,
        "content-range": `bytes ${start}-${last}/${body.length}`,
      });
      out.write(body.subarray(start, start + MIB), () => out.socket?.destroy());
      return true;
    });
    await scene.fetch(blob);
    expect(scene.stored(blob).equals(body)).toBe(true);
    expect(broken.size).toBeGreaterThan(3);
    const starts = scene.blobRequests().map((one) => Number(/bytes=(\d+)-/.exec(one)![1]));
    expect(starts.some((start) => start % (4 * MIB) !== 0)).toBe(true);
  });

  it("with one damaged part is fetched once more, and refused when that is damaged, too", async () => {
    const blob = addBlob();
    const wrong = Buffer.from(body);
    wrong[20 * MIB]! ^= 1;
    scene.fake.blobs.set(blob.digest, wrong);
    expect(await codeOf(scene.fetch(blob))).toBe("CORRUPT_DATA");
    expect(scene.content.has(blob.digest)).toBe(false);
    expect(scene.partial()).toEqual([]);
    const firsts = scene.blobRequests().filter((one) => / bytes=0-/.test(one));
    expect(firsts).toHaveLength(2);
  });

  it("that is cancelled keeps what came in order, and goes on from there", async () => {
    const blob = addBlob();
    const controller = new AbortController();
    onLaterParts((start) => {
      if (start < 16 * MIB) return false;
      controller.abort();
      return true;
    });
    expect(await codeOf(scene.fetch(blob, { signal: controller.signal }))).toBe("CANCELLED");
    expect(scene.partial()).toHaveLength(1);
    scene.fake.intercept = () => false;
    const before = scene.blobRequests().length;
    await scene.fetch(blob);
    expect(scene.stored(blob).equals(body)).toBe(true);
    expect(scene.blobRequests()[before]).toMatch(/ bytes=[1-9]\d*-/);
  });

  it("leaves the places of other blobs to them", async () => {
    const blobs = [
      addBlob(),
      ...[1, 2, 3, 4, 5].map(() => scene.fake.addBlob(randomBytes(3 * MIB))),
    ];
    await Promise.all(blobs.map((blob) => scene.fetch(blob)));
    for (const blob of blobs) expect(scene.content.has(blob.digest)).toBe(true);
  });
});
