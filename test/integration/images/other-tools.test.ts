/** Archives that umoci, skopeo and podman write, and what they make of ours. */

import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { buildCommit } from "../../../src/images/commit-config.js";
import { loadImages } from "../../../src/images/load.js";
import { saveImages } from "../../../src/images/save.js";
import { openStores, type Stores } from "../../unit/images/image-fixture.js";

let stores: Stores;
let directory: string;

beforeEach(async () => {
  stores = await openStores();
  directory = await mkdtemp(path.join(tmpdir(), "varve-tools-"));
});

afterEach(async () => {
  await stores.close();
  // Trees that umoci and podman unpacked can hold directories without write permission.
  execFileSync("chmod", ["-R", "u+rwx", directory]);
  await rm(directory, { recursive: true, force: true });
});

const run = (command: string, ...args: string[]) =>
  execFileSync(command, args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 1 << 26,
  });
const at = (name: string) => path.join(directory, name);
const load = (source: string) => loadImages(stores.images, source);

/** podman with a store of its own. */
const podman = (...args: string[]) =>
  run(
    "podman",
    ...["--root", at("podman"), "--runroot", at("podman-run"), "--storage-driver", "vfs"],
    ...args,
  );

/** A layout by umoci with the tags "base" (one layer) and "app" (two layers). */
async function umociLayout(): Promise<string> {
  const layout = at("layout");
  run("umoci", "init", "--layout", layout);
  run("umoci", "new", "--image", `${layout}:base`);
  await mkdir(at("tree/bin"), { recursive: true });
  await writeFile(at("tree/bin/hello"), "#!/bin/sh\necho hello\n", { mode: 0o755 });
  await symlink("hello", at("tree/bin/hi"));
  run("umoci", "insert", "--image", `${layout}:base`, at("tree"), "/");
  run("umoci", "insert", "--image", `${layout}:base`, "--tag", "app", at("tree/bin"), "/opt");
  run(
    "umoci",
    "config",
    "--image",
    `${layout}:app`,
    "--config.cmd",
    "/bin/hello",
    "--config.env",
    "A=1",
  );
  return layout;
}

/** The files under a directory with type, mode, owner, size and time, as find prints them. */
const treeOf = (root: string) =>
  run("find", root, "-mindepth", "1", "-printf", "%P %y %m %U:%G %s %l\n")
    .split("\n")
    .sort()
    .join("\n");

function unpack(layout: string, tag: string, bundle: string): string {
  run("umoci", "unpack", "--image", `${layout}:${tag}`, bundle);
  return treeOf(path.join(bundle, "rootfs"));
}

describe("what other tools write", () => {
  it("loads from umoci's layout, under the directory's name", async () => {
    const loaded = await load(await umociLayout());
    expect(loaded.map((image) => image.reference).sort()).toEqual([
      "docker.io/library/layout:app",
      "docker.io/library/layout:base",
    ]);
    const image = await stores.images.resolve("layout:app");
    expect(image.config.config).toMatchObject({ Cmd: ["/bin/hello"], Env: ["A=1"] });
    expect(image.layers).toHaveLength(2);
  });

  it("loads from skopeo's archives of both kinds, as the same configuration", async () => {
    const layout = await umociLayout();
    run("skopeo", "copy", `oci:${layout}:app`, `oci-archive:${at("o.tar")}:quay.io/team/app:1`);
    run("skopeo", "copy", `oci:${layout}:app`, `docker-archive:${at("d.tar")}:team/app:2`);
    const [oci] = await load(at("o.tar"));
    const [docker] = await load(at("d.tar"));
    expect(oci?.reference).toBe("quay.io/team/app:1");
    expect(docker?.reference).toBe("docker.io/team/app:2");
    expect(docker?.id).toBe(oci?.id);
    const original = run("skopeo", "inspect", "--raw", `oci:${layout}:app`);
    expect((await stores.images.resolve("quay.io/team/app:1")).manifestBytes.toString()).toBe(
      original,
    );
  });

  it("loads from podman's archives of several images, linked layers included", async () => {
    const layout = await umociLayout();
    run("skopeo", "copy", `oci:${layout}:app`, `oci-archive:${at("s.tar")}:example.org/one:1`);
    podman("load", "-q", "-i", at("s.tar"));
    podman("tag", "example.org/one:1", "example.org/two:2");
    const save = ["save", "-q", "-o"];
    podman(
      ...save,
      at("d.tar"),
      "--format",
      "docker-archive",
      "-m",
      "example.org/one:1",
      "example.org/two:2",
    );
    podman(...save, at("o.tar"), "--format", "oci-archive", "example.org/one:1");
    const docker = await load(at("d.tar"));
    expect(docker.map((image) => image.reference).sort()).toEqual([
      "example.org/one:1",
      "example.org/two:2",
    ]);
    const [oci] = await load(at("o.tar"));
    expect(oci).toMatchObject({ reference: "example.org/one:1", id: docker[0]?.id });
  });
});

describe("what other tools read", () => {
  it("unpacks in umoci to the same tree from a directory that we saved", async () => {
    const layout = await umociLayout();
    await load(layout);
    await saveImages(stores.images, ["layout:app"], at("saved"), { format: "oci-dir" });
    expect(unpack(at("saved"), "app", at("ours"))).toBe(unpack(layout, "app", at("theirs")));
  });

  it("is copied by skopeo from both archives with its digests kept", async () => {
    await load(await umociLayout());
    const image = await stores.images.resolve("layout:app");
    await saveImages(stores.images, ["layout:app"], at("o.tar"), { format: "oci-archive" });
    await saveImages(stores.images, ["layout:app"], at("d.tar"), { format: "docker-archive" });
    const raw = run("skopeo", "inspect", "--raw", `oci-archive:${at("o.tar")}:app`);
    expect(raw).toBe(image.manifestBytes.toString());
    const named = `docker-archive:${at("d.tar")}:layout:app`;
    expect(run("skopeo", "inspect", "--raw", "--config", named)).toBe(image.configBytes.toString());
    run("skopeo", "copy", named, `dir:${at("copied")}`);
    const copied = JSON.parse(await readFile(at("copied/manifest.json"), "utf8")) as {
      config: { digest: string };
    };
    expect(copied.config.digest).toBe(image.id);
  });

  it("loads in podman under its names, several at once", async () => {
    await load(await umociLayout());
    await stores.images.tag("layout:app", "example.org/app:1");
    const references = ["layout:base", "layout:app", "example.org/app:1"];
    await saveImages(stores.images, references, at("d.tar"), { format: "docker-archive" });
    podman("load", "-q", "-i", at("d.tar"));
    const names = podman("images", "--format", "{{.Repository}}:{{.Tag}}").trim().split("\n");
    expect(names.sort()).toEqual([
      "docker.io/library/layout:app",
      "docker.io/library/layout:base",
      "example.org/app:1",
    ]);
    const ids = podman("images", "--no-trunc", "-q", "example.org/app:1").trim();
    expect(ids).toBe((await stores.images.get("example.org/app:1")).id);
  });

  it("accepts a committed image", async () => {
    await load(await umociLayout());
    const base = await stores.images.resolve("layout:base");
    const top = await stores.images.resolve("layout:app");
    const files = buildCommit({
      base,
      layer: { descriptor: top.layers[1]!, diffId: top.diffIds[1]! },
      changes: ['CMD ["/opt/hello"]', "LABEL a=b", "HEALTHCHECK CMD true"],
      author: "tester",
    });
    await stores.content.writeBlob(files.configBytes);
    await stores.content.writeBlob(files.manifestBytes);
    await stores.images.create("committed:1", files.manifestDescriptor);
    await saveImages(stores.images, ["committed:1"], at("o.tar"), { format: "oci-archive" });
    podman("load", "-q", "-i", at("o.tar"));
    const inspected = JSON.parse(podman("inspect", files.id.slice(7))) as object[];
    expect(inspected[0]).toMatchObject({
      Author: "tester",
      Config: { Cmd: ["/opt/hello"], Labels: { a: "b" } },
      RootFS: { Layers: files.diffIds },
    });
    const history = podman("history", "--format", "{{.CreatedBy}}", files.id.slice(7));
    expect(history).toMatch(/^varve commit/);
  });
});
