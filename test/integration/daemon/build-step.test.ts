/** Build steps through a daemon, with the real runc. */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { VarveClient } from "../../../src/client/client.js";
import { DaemonSandbox, run } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const sandbox = new DaemonSandbox();
const { client } = sandbox;

beforeAll(async () => {
  await sandbox.start();
  await sandbox.load(makeLayout(sandbox.path("layout")));
});

afterAll(() => sandbox.dispose());

type Request = Parameters<VarveClient["commitStep"]>[0];

async function build(request: Request) {
  const seen = { output: "", cached: [] as boolean[], ids: [] as string[], lines: [] as string[] };
  for await (const message of client.commitStep({ parent: "small", ...request })) {
    seen.output += Buffer.from(message.output).toString();
    if (message.started !== undefined) seen.lines.push(message.started.instruction);
    if (message.finished !== undefined) {
      seen.cached.push(message.finished.cached);
      seen.ids.push(message.finished.id);
    }
    if (message.image !== undefined) return { ...seen, image: message.image };
  }
  throw new Error("no image came back");
}

const sh = (text: string) => ({ kind: "run", args: [text], shell: true });

/** What a build must not leave behind. */
async function traces() {
  const entries = (name: string) =>
    existsSync(sandbox.path(name)) ? readdirSync(sandbox.path(name)) : [];
  return {
    mounts: sandbox.mounts(),
    views: entries("root/views"),
    targets: entries("state/views"),
    bundles: entries("state/builds").filter((name) => name !== "runc"),
    containers: entries("state/builds/runc"),
    drafts: entries("root/snapshots").filter((name) => name.startsWith(".tmp-")),
    leases: (await client.listLeases()).leases,
  };
}

const NO_TRACES = {
  ...{ mounts: [], views: [], targets: [], bundles: [], containers: [], drafts: [], leases: [] },
};

async function show(reference: string, ...words: string[]): Promise<string> {
  const view = await sandbox.mount({ image: reference, name: "look" });
  try {
    return run("chroot", view.target, ...words).output;
  } finally {
    await client.removeView({ name: "look", force: true });
  }
}

describe("a build", () => {
  it("makes an image of each step, and touches no view", async () => {
    const context = sandbox.path("context");
    mkdirSync(path.join(context, "sub"), { recursive: true });
    writeFileSync(path.join(context, "sub/file"), "from the host\n", { mode: 0o640 });
    const { image, lines, output, ids } = await build({
      reference: "built:1",
      author: "Ada",
      steps: [
        { kind: "copy", args: [context], destination: "/srv/app" },
        {
          kind: "copy",
          args: [path.join(context, "sub/file")],
          destination: "/data/",
          owner: "7:8",
        },
        { kind: "change", change: "ENV GREETING=hello" },
        { kind: "change", change: "WORKDIR /work" },
        sh("echo $GREETING > greeting; cat /srv/app/sub/file; id -u 2>&1"),
        { kind: "run", args: ["/bin/sh", "-c", "echo 'a b' >> /work/greeting"] },
      ],
    });
    expect(lines).toEqual([
      "COPY context /srv/app",
      "COPY --chown=7:8 file /data/",
      "ENV GREETING=hello",
      "WORKDIR /work",
      "RUN /bin/sh -c echo $GREETING > greeting; cat /srv/app/sub/file; id -u 2>&1",
      `RUN ["/bin/sh","-c","echo 'a b' >> /work/greeting"]`,
    ]);
    expect(output).toContain("from the host");
    expect(ids.at(-1)).toBe(image.id);
    expect(image.reference).toBe("docker.io/library/built:1");
    const found = await client.inspectImage({ reference: "built:1" });
    const config = JSON.parse(Buffer.from(found.config).toString());
    expect(config).toMatchObject({ author: "Ada", config: { WorkingDir: "/work" } });
    const history = config.history as { created_by: string; empty_layer?: boolean }[];
    expect(history.slice(-6).map((entry) => entry.created_by)).toEqual(lines);
    expect(history.slice(-6).map((entry) => entry.empty_layer ?? false)).toEqual([
      ...[false, false, true, false, false, false],
    ]);
    expect(await show("built:1", "/bin/sh", "-c", "cat /work/greeting")).toBe("hello\na b");
    expect(await show("built:1", "/bin/stat", "-c", "%u:%g %a", "/data/file")).toBe("7:8 640");
    expect(await show("built:1", "/bin/stat", "-c", "%u:%g %a", "/srv/app/sub/file")).toBe(
      "0:0 640",
    );
    // Mount points of the container are no part of the image.
    expect(await show("built:1", "/bin/ls", "/")).not.toMatch(/proc|sys|dev/);
    expect(await traces()).toEqual(NO_TRACES);
    const views = new Set<string | undefined>();
    const request = { since: "1h", until: "0s", filters: ["type=view"] };
    for await (const { attributes } of client.events(request)) views.add(attributes.name);
    expect([...views]).toEqual(["look"]);
  });

  it("takes a step from the cache until its parent, instruction or content changes", async () => {
    const file = sandbox.path("copied");
    writeFileSync(file, "one");
    const copy = { kind: "copy", args: [file], destination: "/data/copied" };
    const steps = [sh("echo ran; echo x > /data/x"), copy];
    const first = await build({ steps });
    expect(first).toMatchObject({ cached: [false, false], output: "ran\n" });
    const second = await build({ steps, reference: "cached:1" });
    expect(second).toMatchObject({ cached: [true, true], output: "", ids: first.ids });
    expect((await client.inspectImage({ reference: "cached:1" })).image?.id).toBe(first.image.id);
    writeFileSync(file, "two");
    const changed = await build({ steps });
    expect(changed).toMatchObject({ cached: [true, false] });
    expect(await build({ steps, parent: "cached:1" })).toMatchObject({ cached: [false, false] });
    expect(await build({ steps, noCache: true })).toMatchObject({ cached: [false, false] });
    expect(await build({ steps, author: "other" })).toMatchObject({ cached: [false, false] });
  });

  it("that changes nothing adds no layer", async () => {
    const { image } = await build({ steps: [sh("true")], reference: "same:1" });
    expect(image.layer).toBeUndefined();
    const [base, same] = await Promise.all([
      client.inspectImage({ reference: "small" }),
      client.inspectImage({ reference: "same:1" }),
    ]);
    expect(same.chainIds).toEqual(base.chainIds);
  });

  it("keeps its images until they are pruned", async () => {
    const steps = [sh("echo kept > /data/kept"), { kind: "change", change: "CMD cat /data/kept" }];
    const epoch = { sourceDateEpoch: 0n };
    const { image } = await build({ steps, ...epoch, reference: "kept:1" });
    await client.removeImage({ reference: "kept:1" });
    await client.prune({});
    expect(await build({ steps, ...epoch })).toMatchObject({
      cached: [true, true],
      image: { id: image.id },
    });
    await client.createLease({ id: "base", resources: ["small"] });
    expect((await client.prune({ all: true })).buildSteps).toBeGreaterThanOrEqual(2n);
    await client.removeLease({ id: "base" });
    expect(await build({ steps, ...epoch })).toMatchObject({
      cached: [false, false],
      image: { id: image.id },
    });
  });

  it("has the host's network unless it is to have none", async () => {
    const devices = sh("cat /proc/net/dev");
    const host = await build({ steps: [devices], noCache: true });
    const none = await build({ steps: [devices], network: "none", noCache: true });
    const count = (text: string) => text.trim().split("\n").length - 2;
    expect(count(host.output)).toBe(count(readFileSync("/proc/net/dev", "utf8")));
    expect(none.output).toContain("lo:");
    expect(none.output).not.toContain("eth");
  });
});

describe("a step", () => {
  it("that fails says how, and leaves nothing", async () => {
    await expect(
      build({ steps: [sh("echo before; exit 7")], reference: "no:1" }),
    ).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("exit 7: the command ended with 7"),
    });
    await expect(build({ steps: [{ kind: "run", args: ["/absent"] }] })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
    });
    await expect(client.inspectImage({ reference: "no:1" })).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    expect(await traces()).toEqual(NO_TRACES);
  });

  it.each([
    [{ kind: "copy", args: ["/absent"], destination: "/x" }, "NOT_FOUND"],
    [{ kind: "copy", args: ["/dev/null"], destination: "/x" }, "INVALID_ARGUMENT"],
    [{ kind: "copy", args: ["/etc/passwd"], destination: "x" }, "INVALID_ARGUMENT"],
    [{ kind: "copy", args: ["/etc/passwd"], destination: "/../x/" }, "INVALID_ARGUMENT"],
    [{ kind: "copy", args: ["/etc/passwd", "/etc/group"], destination: "/x" }, "INVALID_ARGUMENT"],
    [
      { kind: "copy", args: ["/etc/passwd"], destination: "/x", owner: "nobody" },
      "FAILED_PRECONDITION",
    ],
    [{ kind: "copy", args: ["/etc/passwd"], destination: "/bin/sh/x" }, "SYSCALL"],
    [{ kind: "change", change: "FROM x" }, "INVALID_ARGUMENT"],
    [{ kind: "run", args: [] }, "INVALID_ARGUMENT"],
    [{ kind: "dance" }, "INVALID_ARGUMENT"],
  ])("%j is refused", async (step, code) => {
    await expect(build({ steps: [step] })).rejects.toMatchObject({ code });
    expect(await traces()).toEqual(NO_TRACES);
  });

  it("copies into the image and not through its links", async () => {
    const outside = sandbox.path("outside");
    mkdirSync(outside);
    writeFileSync(path.join(outside, "victim"), "untouched");
    const context = sandbox.path("tree");
    mkdirSync(path.join(context, "d"), { recursive: true });
    writeFileSync(path.join(context, "victim"), "copied");
    writeFileSync(path.join(context, "d/f"), "in d");
    symlinkSync("victim", path.join(context, "link"));
    const links = `mkdir -p ${outside}; ln -s ${outside} /data/out; ln -s ${outside}/victim /data/victim; ln -s ${outside} /data/d`;
    await build({
      reference: "linked:1",
      steps: [
        sh(links),
        { kind: "copy", args: [context], destination: "/data" },
        { kind: "copy", args: [path.join(context, "victim")], destination: "/data/out/" },
        { kind: "copy", args: [path.join(context, "victim")], destination: "/data/out/deep/name" },
      ],
    });
    expect(readdirSync(outside)).toEqual(["victim"]);
    expect(readFileSync(path.join(outside, "victim"), "utf8")).toBe("untouched");
    const list = `cat /data/victim /data/d/f ${outside}/victim ${outside}/deep/name; readlink /data/link`;
    const text = await show(
      "linked:1",
      "/bin/busybox",
      "sh",
      "-c",
      list.replace("; readlink", "; busybox readlink"),
    );
    expect(text).toBe("copiedin dcopiedcopiedvictim");
    rmSync(outside, { recursive: true });
  });

  it("that is cancelled ends with all that it started", async () => {
    const controller = new AbortController();
    const request = { parent: "small", steps: [sh("echo up; cat /proc/1/stat; sleep 1000")] };
    const watch = async () => {
      for await (const { output } of client.commitStep(request, { signal: controller.signal })) {
        if (output.length > 0) controller.abort();
      }
    };
    await expect(watch()).rejects.toMatchObject({ code: "CANCELLED" });
    while ((await traces()).views.length > 0) await sleep(20);
    while ((await traces()).leases.length > 0) await sleep(20);
    expect(await traces()).toEqual(NO_TRACES);
  });

  it("that outlives its daemon is cleaned up by the next", async () => {
    const request = { parent: "small", steps: [sh("echo up; exec cat /dev/zero > /dev/null")] };
    const watch = async () => {
      for await (const { output } of client.commitStep(request)) {
        if (output.length > 0) await sandbox.end("SIGKILL");
      }
    };
    await expect(watch()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(sandbox.mounts()).toHaveLength(1);
    await sandbox.start();
    expect(await traces()).toEqual(NO_TRACES);
    expect((await client.listViews({})).views).toEqual([]);
    expect(await build({ steps: [sh("echo again")] })).toMatchObject({ output: "again\n" });
  });
});
