/** Many fetches over a line that drops, delays, cuts and changes at random. */

import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content-store.js";
import { type Database, openDatabase } from "../../../src/metadata/database.js";
import { Registries } from "../../../src/registry/registries.js";
import { FakeRegistry, sha256 } from "./fake-registry.js";
import { makeRandom, type Random } from "./unreliable-line.js";

const FETCHES = 120;
const ACCEPTABLE = ["done", "CORRUPT_DATA", "UNAVAILABLE"];

let root: string;
let database: Database;
let fake: FakeRegistry;

beforeAll(async () => {
  root = mkdtempSync(path.join(os.tmpdir(), "varve-faults-"));
  database = openDatabase(path.join(root, "varve.db"));
  fake = await FakeRegistry.start();
});

afterAll(async () => {
  await fake.dispose();
  database.close();
  rmSync(root, { recursive: true, force: true });
});

/** Answers a blob request with one of the faults, or leaves it to the registry. */
function fault(random: Random, request: IncomingMessage, out: ServerResponse) {
  const whole = fake.blobs.get((request.url ?? "").split("/").at(-1) ?? "");
  if (whole === undefined) return false;
  const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const rest = Buffer.from(whole.subarray(start));
  const cut = random(rest.length + 1);
  const range = `bytes ${start}-${whole.length - 1}/${whole.length}`;
  const headers = {
    "content-length": rest.length,
    ...(start > 0 ? { "content-range": range } : {}),
  };
  const status = start > 0 ? 206 : 200;
  switch (random(8)) {
    case 0:
      request.socket.destroy();
      return true;
    case 1:
      out.writeHead(503).end();
      return true;
    case 2:
      out.writeHead(status, headers);
      out.write(rest.subarray(0, cut), () => request.socket.destroy());
      return true;
    case 3:
      if (rest.length > 0) rest[cut % rest.length]! ^= 1;
      out.writeHead(status, headers).end(rest);
      return true;
    case 4:
      setTimeout(() => out.writeHead(status, headers).end(rest), random(20));
      return true;
    case 5:
      // Another part than the one that was asked for.
      out.writeHead(206, { "content-range": `bytes ${cut}-${whole.length - 1}/${whole.length}` });
      out.end(whole.subarray(cut));
      return true;
    default:
      return false;
  }
}

it(`${FETCHES} fetches end in the right blob or a plain error, and none leaves a wrong one`, async () => {
  const content = new ContentStore(root, database);
  await content.open();
  const retry = { attempts: 4, firstDelayMs: 1, maxDelayMs: 4 };
  const registries = new Registries({ content, database, retry });
  const random = makeRandom(20261121);
  fake.intercept = (request, response) => fault(random, request, response);
  const repository = registries.repository(
    { domain: fake.domain, path: "team/app" },
    { plainHttp: true, environment: {} },
  );
  const outcomes = new Map<string, number>();
  const fetchOne = async () => {
    const blob = fake.addBlob(randomBytes(random(200_000)));
    const lease = database.transaction(() => database.leases.create()).id;
    const outcome = await registries.fetch(blob, { repository, lease }).then(
      () => "done",
      (error: { code?: string }) => error.code ?? String(error),
    );
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    expect(content.has(blob.digest)).toBe(outcome === "done");
  };
  const runner = async () => {
    for (let left = FETCHES / 6; left > 0; left--) await fetchOne();
  };
  await Promise.all(Array.from({ length: 6 }, runner));
  await registries.close();
  expect(ACCEPTABLE).toEqual(expect.arrayContaining([...outcomes.keys()]));
  expect(outcomes.get("done")).toBeGreaterThan(FETCHES / 2);
  for (const name of readdirSync(path.join(root, "blobs/sha256"))) {
    expect(sha256(readFileSync(path.join(root, "blobs/sha256", name)))).toBe(`sha256:${name}`);
  }
});
