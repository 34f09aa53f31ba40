/**
 * The power goes while a store lies on a disk with a write cache: what was acknowledged is on the disk.
 *
 * `scripts/conformance/power-loss` cuts more often than there is time for here.
 */

import { existsSync, readFileSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, expect, it } from "vitest";
import { DaemonSandbox } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";
import { mountImage, VolatileDisk } from "./volatile-disk.js";

const ROUNDS = Number(process.env.VARVE_TEST_CUTS ?? 1);

const sandboxes: DaemonSandbox[] = [];
const endings: (() => void)[] = [];

afterEach(async () => {
  for (const sandbox of sandboxes) await sandbox.end("SIGKILL");
  for (const sandbox of sandboxes.toReversed()) {
    const [disk] = sandbox.mounts().filter((target) => target === sandbox.path("root"));
    for (const end of endings.splice(0)) end();
    if (disk !== undefined) rmSync(sandbox.path("image"), { force: true });
    await sandbox.dispose();
  }
  sandboxes.length = 0;
});

function newSandbox(): DaemonSandbox {
  const sandbox = new DaemonSandbox();
  sandboxes.push(sandbox);
  return sandbox;
}

/** What must be there after a cut. */
interface Acknowledged {
  readonly names: string[];
  readonly view: string | undefined;
  /** A file of the view that was flushed by a program, and what it said. */
  readonly flushed: string | undefined;
}

/** The machine has been started again since: the kernel has nothing that the disk has not. */
function pretendAnotherBoot(root: string): void {
  const sql = new BetterSqlite3(path.join(root, "varve.db"));
  sql.exec("UPDATE unsynced_snapshots SET boot_id = 'another'");
  sql.close();
}

async function examine(image: string, promised: Acknowledged): Promise<void> {
  const sandbox = newSandbox();
  mountImage(image, sandbox.path("root"));
  if (existsSync(sandbox.path("root/varve.db"))) pretendAnotherBoot(sandbox.path("root"));
  await sandbox.start();
  const { client } = sandbox;
  for await (const { fault } of client.checkStore({ verifyContent: true })) {
    expect(fault).toBeUndefined();
  }
  const { images } = await client.listImages({});
  const names = images.flatMap((one) => one.repoTags);
  expect(names).toEqual(expect.arrayContaining(promised.names));
  // What was acknowledged can be used, unpacked or not.
  for (const name of promised.names) await sandbox.unpack(name);
  if (promised.view !== undefined) {
    const { view } = await client.inspectView({ name: promised.view });
    const { target } = view?.mounted === true ? view : await sandbox.mount({ name: promised.view });
    expect(readFileSync(path.join(target, "data/top"), "utf8")).toBe("top\n");
    if (promised.flushed !== undefined) {
      expect(readFileSync(path.join(target, "data/flushed"), "utf8")).toBe(promised.flushed);
    }
  }
  for await (const { fault } of client.checkStore({ verifyContent: true })) {
    expect(fault).toBeUndefined();
  }
  await sandbox.end();
  sandboxes.splice(sandboxes.indexOf(sandbox), 1);
  await sandbox.dispose();
}

it(`what was acknowledged survives, after ${4 * ROUNDS} power cuts`, {
  timeout: 60_000 + ROUNDS * 120_000,
}, async () => {
  const sandbox = newSandbox();
  const disk = new VolatileDisk(sandbox.path("device"));
  endings.push(() => disk.stop(sandbox.path("root")));
  await disk.start(sandbox.path("root"));
  await sandbox.start("--io=cached");
  const cuts: { image: string; promised: Acknowledged }[] = [];
  const cut = async (promised: Acknowledged, losesOneIn: number) => {
    const image = sandbox.path(`cut-${cuts.length}`);
    await disk.cut(image, losesOneIn);
    cuts.push({ image, promised });
  };
  const names: string[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const image = `docker.io/library/small:${round}`;
    const view = `v${round}`;
    const layout = sandbox.path(`layout-${round}`);
    await sandbox.load(makeLayout(layout, image));
    names.push(image);
    await cut({ names: [...names], view: undefined, flushed: undefined }, 0);
    const { target } = await sandbox.mount({ image, name: view });
    await cut({ names: [...names], view, flushed: undefined }, 2);
    const file = await open(path.join(target, "data/flushed"), "w");
    await file.writeFile(`flushed ${round}\n`);
    await file.sync();
    await file.close();
    const flushed = `flushed ${round}\n`;
    await cut({ names: [...names], view, flushed }, 0);
    const made = `docker.io/library/made:${round}`;
    await sandbox.commit({ name: view, reference: made });
    names.push(made);
    await cut({ names: [...names], view, flushed }, 3);
    for (const one of cuts.splice(0)) {
      await examine(one.image, one.promised);
      rmSync(one.image);
    }
  }
});
