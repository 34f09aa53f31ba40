/** The daemon dies at each numbered step of everything that changes the state on disk. */

import {
  chmodSync,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FAULT_POINTS, type FaultPoint, parseFault } from "../../../src/system/fault-points.js";
import { RegistryProcess } from "../registry/registry-process.js";
import { BIG_BYTES, CrashScene } from "./crash-scene.js";

const SMALL = "docker.io/library/small:latest";
const access = { environment: { HOME: "/nowhere", DOCKER_CONFIG: "/nowhere" } };
const scene = new CrashScene();
const { sandbox, client } = scene;
let registry: RegistryProcess;
/** Where the view "v" is mounted. */
let target = "";

beforeAll(async () => {
  await scene.open();
  registry = await RegistryProcess.start();
});

afterAll(async () => {
  await scene.dispose();
  await registry.dispose();
});

/** Work that can be cut short, and what it begins with. */
interface Work {
  readonly points: readonly FaultPoint[];
  /** Runs on a daemon that does not die, in a store with nothing but what is kept. */
  readonly before?: () => Promise<void>;
  readonly run: () => Promise<void>;
  /** After the crash: all of it, or nothing. `run` is called once more after this. */
  readonly between?: () => Promise<void>;
  /** After `run` has succeeded. */
  readonly after: () => Promise<void>;
}

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const message of stream) void message;
}

const load = async () => void (await sandbox.load(sandbox.path("layout")));
const mount = async () => {
  target = (await sandbox.mount({ image: "small", name: "v" })).target;
};
const inView = (name: string) => path.join(target, name);
const text = (name: string) => readFileSync(inView(name), "utf8");
const names = async () => {
  const { images } = await client.listImages({});
  return images.flatMap((image) => image.repoTags).filter((name) => !name.includes("kept"));
};
const pushed = () => `${registry.domain}/pushed:1`;
const push = () => drain(client.pushImage({ reference: "small", destination: pushed(), access }));
const pull = () => drain(client.pullImage({ reference: pushed(), access }));
const commit = async () => {
  await sandbox.commit({ name: "v", reference: "made:1" });
};
const withView = async () => {
  await load();
  await mount();
};
/** A name's target, or nothing; whole, which the check has seen. */
const noneOrAll = async (name: string) => {
  expect([[], [name]]).toContainEqual((await names()).filter((one) => one === name));
};

const inDirectory = (work: Omit<Work, "before">): Work => ({ ...work, before: withView });

const WORKS: Readonly<Record<string, Work>> = {
  load: {
    points: [
      ...(["ingest.begun", "ingest.written", "ingest.synced", "ingest.renamed"] as const),
      ...(["ingest.recorded", "tag.begun", "tag.recorded"] as const),
    ],
    run: load,
    between: () => noneOrAll(SMALL),
    after: async () => expect(await names()).toEqual([SMALL]),
  },
  push: {
    points: ["push.blob", "push.blobs", "push.manifest"],
    before: load,
    run: push,
    after: async () => {
      await scene.clear();
      await pull();
      expect(await names()).toEqual([pushed()]);
    },
  },
  pull: {
    points: ["pull.resolved", "pull.document", "pull.layer", "pull.fetched", "pull.named"],
    run: pull,
    between: () => noneOrAll(pushed()),
    after: async () => expect(await names()).toEqual([pushed()]),
  },
  unpack: {
    points: [
      ...(["unpack.begun", "unpack.entry", "unpack.applied", "index.written"] as const),
      ...(["index.built", "snapshot.renamed", "snapshot.recorded", "snapshot.flushed"] as const),
    ],
    before: load,
    // Its flush comes after the answer.
    run: async () => {
      await sandbox.unpack("small");
      if (armed === "snapshot.flushed") await sandbox.deathSignal();
    },
    after: async () => {
      await mount();
      expect(text("d")).toBe("d\n");
    },
  },
  mount: {
    points: [
      ...(["prepare.work", "prepare.upper", "prepare.recorded"] as const),
      ...(["mount.mounted", "mount.recorded"] as const),
    ],
    before: async () => {
      await load();
      await sandbox.unpack("small");
    },
    run: mount,
    between: async () => {
      const { views } = await client.listViews({});
      expect(views.map((view) => view.name)).toEqual(["kept"]);
    },
    after: async () => expect(text("a")).toBe("a\n"),
  },
  "copy-up": inDirectory({
    points: ["copy-up.staged", "copy-up.placed"],
    run: async () => writeFileSync(inView("a"), "new\n"),
    between: async () => expect(["a\n", "new\n", ""]).toContain(text("a")),
    after: async () => expect(text("a")).toBe("new\n"),
  }),
  "copy-up of data": inDirectory({
    points: ["copy-up.data", "copy-up.completed"],
    run: async () => {
      chmodSync(inView("big"), 0o600);
      writeFileSync(inView("big"), "x", { flag: "r+" });
    },
    between: async () => expect(statSync(inView("big")).size).toBe(BIG_BYTES),
    after: async () => {
      expect(text("big").startsWith("x")).toBe(true);
      expect(statSync(inView("big"))).toMatchObject({ size: BIG_BYTES, mode: 0o100600 });
    },
  }),
  creation: inDirectory({
    points: ["create.placed"],
    run: async () => writeFileSync(inView("data/made"), "made"),
    between: async () => {
      if (existsSync(inView("data/made"))) expect(text("data/made")).toBe("");
    },
    after: async () => expect(text("data/made")).toBe("made"),
  }),
  rename: inDirectory({
    points: ["rename.marked", "rename.prepared", "rename.moved"],
    run: async () => {
      if (existsSync(inView("b"))) renameSync(inView("b"), inView("c"));
    },
    between: async () => expect([`${existsSync(inView("b"))} ${text("c")}`]).toEqual([either]),
    after: async () => {
      expect(existsSync(inView("b"))).toBe(false);
      expect(text("c")).toBe("b\n");
    },
  }),
  removal: inDirectory({
    points: ["remove.swapped"],
    run: async () => {
      if (!existsSync(inView("d"))) return;
      chmodSync(inView("d"), 0o600);
      rmSync(inView("d"));
    },
    after: async () => expect(existsSync(inView("d"))).toBe(false),
  }),
  commit: {
    points: [
      ...(["commit.entry", "commit.packed", "commit.layer"] as const),
      ...(["commit.config", "commit.manifest"] as const),
    ],
    before: async () => {
      await withView();
      writeFileSync(inView("data/made"), "made");
    },
    run: commit,
    between: async () => expect(await names()).toEqual([SMALL]),
    after: async () => {
      await sandbox.unpack("made:1");
      expect(await names()).toContain("docker.io/library/made:1");
    },
  },
  "removal of a name": {
    points: ["untag.recorded"],
    before: load,
    run: async () => {
      if ((await names()).length > 0) await client.removeImage({ reference: "small" });
    },
    after: async () => expect(await names()).toEqual([]),
  },
  unmount: {
    points: ["unmount.unmounted"],
    before: withView,
    run: async () => {
      const { view } = await client.inspectView({ name: "v" });
      if (view?.mounted === true) await client.unmountView({ name: "v" });
    },
    after: async () => expect(existsSync(inView("a"))).toBe(false),
  },
  "removal of a view": {
    points: ["remove.recorded", "remove.renamed"],
    before: withView,
    run: async () => {
      const { views } = await client.listViews({});
      if (views.length > 1) await client.removeView({ name: "v", force: true });
    },
    after: async () => expect(scene.list("root/views")).toHaveLength(1),
  },
  collection: {
    points: ["gc.recorded", "gc.renamed", "gc.discarded"],
    before: async () => {
      await load();
      await sandbox.unpack("small");
    },
    run: async () => {
      if ((await names()).length > 0) await client.removeImage({ reference: "small" });
      await client.prune({});
    },
    after: async () => expect(scene.list("root/snapshots")).toHaveLength(2),
  },
};

/** The point that the daemon at work dies at. */
let armed: FaultPoint | undefined;
const either = expect.stringMatching(/^(true (b|c)|false b)\n$/) as unknown as string;

async function crashAt(point: FaultPoint, work: Work): Promise<void> {
  armed = undefined;
  await scene.clear();
  await work.before?.();
  scene.arm(point);
  armed = point;
  // The answer may have been on its way; that the daemon died is what counts.
  await work.run().catch(() => undefined);
  expect(await sandbox.deathSignal()).toBe("SIGKILL");
  armed = undefined;
  await scene.restart();
  await scene.verify();
  await work.between?.();
  await work.run();
  await work.after();
}

describe.each(Object.entries(WORKS))("a crash in %s", (_, work) => {
  it.each(work.points)("at %s loses nothing and leaves nothing", (point) => crashAt(point, work));
});

describe("the points", () => {
  it("are named by the message that refuses another name", () => {
    expect(parseFault("ingest.begun:3")).toEqual({ point: "ingest.begun", passage: 3 });
    expect(parseFault("")).toBeUndefined();
    expect(() => parseFault("ingest.bgun")).toThrow("ingest.begun");
    expect(() => parseFault("ingest.begun:0")).toThrow("NAME:N");
  });

  it("are all driven here", () => {
    const driven = Object.values(WORKS).flatMap((work) => work.points);
    expect([...driven].sort()).toEqual([...FAULT_POINTS].sort());
  });

  it("leave a store that can be emptied", async () => {
    await scene.restart();
    await scene.expectNothingLeft();
  });
});
