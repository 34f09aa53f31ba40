/** A socket that is there before anybody answers. */

import { once } from "node:events";
import { existsSync, linkSync, mkdtempSync, renameSync, rmSync, statSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Caller } from "../../../src/services/caller.js";
import { ListeningSocket } from "../../../src/services/listening-socket.js";

let directory: string;
let file: string;
let listening: ListeningSocket | undefined;
const clients: net.Socket[] = [];

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "varve-socket-"));
  file = path.join(directory, "s.sock");
});

afterEach(() => {
  for (const client of clients.splice(0)) client.destroy();
  listening?.close();
  rmSync(directory, { recursive: true, force: true });
});

async function connect(): Promise<net.Socket> {
  const client = net.connect(file);
  clients.push(client);
  await once(client, "connect");
  return client;
}

/** A connection of each of these words arrives, with who sent it. */
async function received(wanted: number): Promise<[string, Caller][]> {
  const found: [string, Caller][] = [];
  await new Promise<void>((resolve) => {
    listening!.receive((connection, caller) => {
      clients.push(connection);
      connection.on("data", (data) => {
        found.push([data.toString(), caller]);
        if (found.length === wanted) resolve();
      });
    });
  });
  return found;
}

describe("a listening socket", () => {
  it("hands over who came before, with what was said meanwhile, and who comes after", async () => {
    listening = await ListeningSocket.open({ path: file, flag: "--socket" });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    (await connect()).write("early");
    // One that does not wait is not handed over.
    (await connect()).destroy();
    (await connect()).write("next");
    const both = received(3);
    (await connect()).write("late");
    const words = (await both).map(([word]) => word);
    expect(words.sort()).toEqual(["early", "late", "next"]);
    for (const [, { pid, isOwner }] of await both) {
      expect([pid, isOwner]).toEqual([process.pid, true]);
    }
  });

  it("ends those who wait, and its file, when it is closed", async () => {
    listening = await ListeningSocket.open({ path: file, flag: "--socket" });
    const client = await connect();
    // By a reset, where the connection had not been accepted yet.
    client.resume().on("error", () => undefined);
    const ended = new Promise<void>((resolve) => client.once("close", () => resolve()));
    listening.close();
    await ended;
    expect(existsSync(file)).toBe(false);
  });

  it("is not opened where somebody listens, but over what a dead one left", async () => {
    listening = await ListeningSocket.open({ path: file, flag: "--socket" });
    const again = () => ListeningSocket.open({ path: file, flag: "--socket" });
    await expect(again()).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    linkSync(file, `${file}.dead`);
    listening.close();
    renameSync(`${file}.dead`, file);
    listening = await again();
    (await connect()).write("x");
    expect((await received(1))[0]![0]).toBe("x");
  });

  it("has a path that fits the kernel", async () => {
    const long = path.join(directory, "x".repeat(100));
    await expect(ListeningSocket.open({ path: long, flag: "--socket" })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });
});
