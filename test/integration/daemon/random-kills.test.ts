/**
 * The daemon is killed at random moments while many things go on, and while it starts again; after that the store must
 * be consistent, and have what was acknowledged.
 *
 * `scripts/conformance/crash` runs many more rounds of it than fit here.
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { randomNumbers } from "../../tools/random.js";
import { CrashScene } from "./crash-scene.js";

const KILLS = Number(process.env.VARVE_TEST_KILLS ?? 3);
const SEED = Number(process.env.VARVE_TEST_SEED ?? Date.now() % 1_000_000);
/** Streams of work at the same time. */
const STREAMS = 4;
/** The longest that a daemon lives, ms. */
const LIFE_MS = 500;
/** The same of one that is killed while it settles what the last one left, and how many of them come in a row at most. */
const START_MS = 800;
const STARTS = 3;

const scene = new CrashScene();
const { sandbox, client } = scene;

const random = randomNumbers(SEED);

/** What one stream knows of its own objects; "unknown" while an answer is outstanding. */
interface Stream {
  readonly id: number;
  /** Names of images that must be there (true) or not (false). */
  readonly names: Map<string, boolean | "unknown">;
  view: { target: string; mounted: boolean | "unknown" } | undefined | "unknown";
  /** Content of files in the view. */
  readonly files: Map<string, string | "unknown">;
  count: number;
}

const streams: Stream[] = Array.from({ length: STREAMS }, (_, id) => ({
  ...{ id, count: 0, view: undefined },
  names: new Map(),
  files: new Map(),
}));
const nameOf = (stream: Stream, tag: string) => `docker.io/library/s${stream.id}:${tag}`;
const viewOf = (stream: Stream) => `s${stream.id}`;

beforeAll(async () => {
  await scene.open();
  await sandbox.load(sandbox.path("layout"));
});

afterAll(() => scene.dispose());

type Operation = (stream: Stream) => Promise<void>;

const setName = async (
  stream: Stream,
  tag: string,
  wanted: boolean,
  work: () => Promise<unknown>,
) => {
  const name = nameOf(stream, tag);
  stream.names.set(name, "unknown");
  await work();
  stream.names.set(name, wanted);
};

const OPERATIONS: readonly Operation[] = [
  (stream) => {
    const target = nameOf(stream, "tagged");
    return setName(stream, "tagged", true, () => client.tagImage({ source: "kept:1", target }));
  },
  async (stream) => {
    const reference = nameOf(stream, "tagged");
    if (stream.names.get(reference) !== true) return;
    await setName(stream, "tagged", false, () => client.removeImage({ reference }));
  },
  () => sandbox.load(sandbox.path("layout")).then(() => undefined),
  async (stream) => {
    if (stream.view !== undefined) return;
    stream.view = "unknown";
    // Before the call: should its answer never come, the new view has none of the last one's files.
    stream.files.clear();
    const { target } = await sandbox.mount({ image: "kept:1", name: viewOf(stream) });
    stream.view = { target, mounted: true };
  },
  // Synchronous: the file's daemon is another process.
  async (stream) => {
    const { view, files } = stream;
    if (view === undefined || view === "unknown" || view.mounted !== true) return;
    const file = `f${random(3)}`;
    const text = `${stream.id} ${stream.count++}\n`;
    const before = files.get(file);
    files.set(file, "unknown");
    const place = path.join(view.target, "data", file);
    // Appended by one write(2), so that it is there whole or not at all.
    writeFileSync(place, text, { flag: "a" });
    files.set(
      file,
      before === undefined || before === "unknown" ? readFileSync(place, "utf8") : before + text,
    );
  },
  async (stream) => {
    if (stream.view === undefined || stream.view === "unknown") return;
    const reference = nameOf(stream, "made");
    await setName(stream, "made", true, () =>
      sandbox.commit({ name: viewOf(stream), reference }).then((made) => sandbox.unpack(made.id)),
    );
  },
  async (stream) => {
    const { view } = stream;
    if (view === undefined || view === "unknown" || view.mounted !== true) return;
    view.mounted = "unknown";
    await client.unmountView({ name: viewOf(stream) });
    view.mounted = false;
  },
  async (stream) => {
    const { view } = stream;
    if (view === undefined || view === "unknown" || view.mounted !== false) return;
    view.mounted = "unknown";
    await sandbox.mount({ name: viewOf(stream) });
    view.mounted = true;
  },
  async (stream) => {
    if (stream.view === undefined || stream.view === "unknown" || random(3) > 0) return;
    stream.view = "unknown";
    await client.removeView({ name: viewOf(stream), force: true });
    stream.view = undefined;
  },
  async (stream) => {
    const reference = nameOf(stream, "made");
    if (stream.names.get(reference) !== true) return;
    await setName(stream, "made", false, () => client.removeImage({ reference, force: true }));
  },
  () => client.prune({}).then(() => undefined),
];

/** Works until the daemon is dead. */
async function work(stream: Stream, isDead: () => boolean): Promise<void> {
  while (!isDead()) {
    await OPERATIONS[random(OPERATIONS.length)]!(stream).catch(async () => {
      // Refused because of another stream, or the daemon has died.
      if (isDead()) return;
      await settle(stream).catch((error: unknown) => {
        if (!isDead()) throw error;
      });
    });
    await sleep(1);
  }
}

/** Finds out what became of work whose answer never came; whatever is certain must be so. */
async function settle(stream: Stream): Promise<void> {
  const { images } = await client.listImages({});
  const tags = new Set(images.flatMap((image) => image.repoTags));
  for (const [name, wanted] of stream.names) {
    if (wanted !== "unknown") expect([name, tags.has(name)]).toEqual([name, wanted]);
    stream.names.set(name, tags.has(name));
  }
  const { views } = await client.listViews({});
  const found = views.find((view) => view.name === viewOf(stream));
  if (stream.view !== "unknown") expect(found === undefined).toBe(stream.view === undefined);
  const before = stream.view === "unknown" ? undefined : stream.view;
  stream.view = found && { target: found.target, mounted: found.mounted };
  if (found === undefined) return;
  if (before !== undefined && before.mounted !== "unknown") {
    expect([found.name, found.mounted]).toEqual([found.name, before.mounted]);
  }
  if (!found.mounted) return;
  for (const [file, wanted] of stream.files) {
    const place = path.join(found.target, "data", file);
    const text = existsSync(place) ? readFileSync(place, "utf8") : "";
    if (wanted !== "unknown") expect([place, text]).toEqual([place, wanted]);
    // Whole lines, in their order.
    expect(text).toMatch(/^(\d+ \d+\n)*$/);
    stream.files.set(file, text);
  }
}

it(`${KILLS} kills at random moments (seed ${SEED}) lose nothing and leave nothing`, {
  timeout: 60_000 + KILLS * 30_000,
}, async () => {
  for (let kills = 0; kills < KILLS; ) {
    let dead = false;
    const working = streams.map((stream) => work(stream, () => dead));
    await sleep(random(LIFE_MS));
    dead = true;
    await sandbox.end("SIGKILL");
    kills++;
    await Promise.all(working);
    for (let starts = random(STARTS + 1); starts > 0 && kills < KILLS; starts--, kills++) {
      await sandbox.startAndKill(random(START_MS));
    }
    await scene.restart();
    await scene.verify();
    for (const stream of streams) await settle(stream);
  }
  await scene.expectNothingLeft();
});
