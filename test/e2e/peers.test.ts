/** Images that varve writes are read the same by every other tool, and the other way round. */

import { existsSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compareTrees, readTree, type Tree } from "../tools/tree.js";
import { Containerd, ContainerStorage } from "./peers.js";
import { attempt, makeImage, run, Sandbox, shell } from "./sandbox.js";
import { changeEverything } from "./scenery.js";

const sandbox = new Sandbox("peers");
const storage = new ContainerStorage(sandbox);
const containerd = new Containerd(sandbox);
let view: Tree;

const archive = () => sandbox.path("committed.tar");
const sameAsView = (directory: string) => compareTrees(view, readTree(directory));
const sameBelowRoot = (directory: string) =>
  compareTrees(belowRoot(view), belowRoot(readTree(directory)));

/** Without the root's own entry: these tools give a new container's root directory their own. */
const belowRoot = (tree: Tree): Tree => new Map([...tree].filter(([path]) => path !== ""));

beforeAll(async () => {
  sandbox.varve("load", "-i", makeImage("busybox", sandbox.path("busybox.tar")));
  sandbox.makeDirectory("view");
  sandbox.varve("mount", "busybox", sandbox.path("view"), "--name", "work");
  changeEverything(sandbox.path("view"));
  sandbox.varve("commit", "work", "example.com/team/changed:v1", "-m", "everything");
  sandbox.varve("save", "example.com/team/changed:v1", "-o", archive());
  sandbox.varve(
    "save",
    "--format",
    "docker-archive",
    "example.com/team/changed:v1",
    "-o",
    sandbox.path("docker.tar"),
  );
  sandbox.varve(
    "save",
    "--format",
    "oci-dir",
    "example.com/team/changed:v1",
    "-o",
    sandbox.path("oci-dir"),
  );
  view = readTree(sandbox.path("view"));
  await containerd.start();
}, 120_000);

afterAll(async () => {
  await containerd.stop();
  storage.dispose();
  sandbox.dispose();
});

describe("an image committed and saved by varve", () => {
  it("is the same tree when varve mounts it", () => {
    const again = sandbox.mount("example.com/team/changed:v1", "again");
    expect(compareTrees(view, readTree(again))).toEqual([]);
  });

  it("is inspected and copied by skopeo", () => {
    const inspected = JSON.parse(run("skopeo", ["inspect", `oci-archive:${archive()}`])) as {
      Layers: string[];
      Os: string;
    };
    expect(inspected.Os).toBe("linux");
    expect(inspected.Layers).toHaveLength(2);
    run("skopeo", [
      "copy",
      "--quiet",
      `oci-archive:${archive()}`,
      `oci:${sandbox.path("copied")}:v1`,
    ]);
    run("skopeo", [
      "copy",
      "--quiet",
      `docker-archive:${sandbox.path("docker.tar")}`,
      `oci:${sandbox.path("copied")}:from-docker`,
    ]);
    expect(existsSync(sandbox.path("copied/index.json"))).toBe(true);
  });

  it("unpacks with umoci to the same tree", () => {
    const tag = (
      JSON.parse(shell(`cat ${sandbox.path("oci-dir/index.json")}`)) as {
        manifests: { annotations: Record<string, string> }[];
      }
    ).manifests[0]!.annotations["org.opencontainers.image.ref.name"];
    run("umoci", ["unpack", "--image", `${sandbox.path("oci-dir")}:${tag}`, sandbox.path("umoci")]);
    expect(sameAsView(sandbox.path("umoci/rootfs"))).toEqual([]);
  });

  it("mounts with buildah to the same tree", () => {
    const container = storage.buildah("from", "--quiet", `oci-archive:${archive()}`);
    expect(sameBelowRoot(storage.buildah("mount", container))).toEqual([]);
    storage.buildah("rm", container);
  });

  it("loads into podman from either archive", () => {
    for (const file of [archive(), sandbox.path("docker.tar")]) {
      storage.podman("load", "--quiet", "-i", file);
      const mounted = storage.podman("image", "mount", "example.com/team/changed:v1");
      expect(sameBelowRoot(mounted)).toEqual([]);
      storage.podman("image", "umount", "example.com/team/changed:v1");
      storage.podman("rmi", "example.com/team/changed:v1");
    }
  });

  it("is imported by containerd, mounts to the same tree and runs", () => {
    containerd.ctr("images", "import", archive());
    const target = sandbox.makeDirectory("ctr-mount");
    containerd.ctr("images", "mount", "example.com/team/changed:v1", target);
    try {
      expect(sameBelowRoot(target)).toEqual([]);
    } finally {
      containerd.ctr("images", "unmount", target);
    }
    const output = containerd.ctr(
      ...["run", "--rm", "--snapshotter", "overlayfs", "example.com/team/changed:v1", "one"],
      ...["/bin/cat", "/srv/new"],
    );
    expect(output).toBe("new");
  });
});

describe("an image of another tool", () => {
  it("of buildah, with whiteouts, opaque directories and links, is the same tree in varve", () => {
    const base = storage.buildah("from", "--quiet", `oci-archive:${sandbox.path("busybox.tar")}`);
    changeEverything(storage.buildah("mount", base));
    for (const format of ["oci", "docker"]) {
      const output = sandbox.path(`buildah-${format}.tar`);
      storage.buildah(
        "commit",
        "--quiet",
        "--format",
        format,
        base,
        `${format}-archive:${output}:localhost/by-buildah:${format}`,
      );
      sandbox.varve("load", "-i", output);
      const theirs = storage.buildah("from", "--quiet", `${format}-archive:${output}`);
      const ours = sandbox.mount(`localhost/by-buildah:${format}`, `buildah-${format}`);
      expect(
        compareTrees(
          belowRoot(readTree(storage.buildah("mount", theirs))),
          belowRoot(readTree(ours)),
        ),
      ).toEqual([]);
    }
  });

  it("of umoci, with many layers, is the same tree in varve", () => {
    const layout = sandbox.path("umoci-layout");
    run("skopeo", [
      "copy",
      "--quiet",
      `oci-archive:${sandbox.path("busybox.tar")}`,
      `oci:${layout}:many`,
    ]);
    const image = `${layout}:many`;
    for (const layer of [1, 2, 3, 4, 5, 6, 7, 8]) {
      const bundle = sandbox.path(`umoci-bundle-${layer}`);
      run("umoci", ["unpack", "--image", image, bundle]);
      if (layer === 1) changeEverything(`${bundle}/rootfs`);
      else
        shell(
          `cd "$1" && echo ${layer} > srv/layer && rm -rf srv/keep${layer - 1} && mkdir -p srv/keep${layer}/in && echo x > srv/keep${layer}/in/file && chmod 7${layer - 1}5 srv/deep`.replace(
            "$1",
            `${bundle}/rootfs`,
          ),
        );
      run("umoci", ["repack", "--image", image, bundle]);
    }
    run("umoci", ["unpack", "--image", image, sandbox.path("umoci-last")]);
    const loaded = sandbox.varve("load", "-i", layout);
    // A layout names tags only: the directory's name is the repository.
    expect(loaded).toContain("umoci-layout:many");
    const ours = sandbox.mount("umoci-layout:many", "umoci-many");
    expect(compareTrees(readTree(sandbox.path("umoci-last/rootfs")), readTree(ours))).toEqual([]);
  }, 120_000);

  it("converted by skopeo to docker and OCI archives has the same ID and tree", () => {
    run("skopeo", [
      "copy",
      "--quiet",
      `oci-archive:${sandbox.path("busybox.tar")}`,
      `docker-archive:${sandbox.path("by-skopeo.tar")}:localhost/by-skopeo:1`,
    ]);
    sandbox.varve("load", "-i", sandbox.path("by-skopeo.tar"));
    const ours = sandbox.mount("localhost/by-skopeo:1", "skopeo");
    const original = sandbox.mount("busybox", "original", "--read-only");
    expect(compareTrees(readTree(original), readTree(ours))).toEqual([]);
  });
});

describe("many formats on the way in", () => {
  it("load from standard input, gzipped or not", () => {
    for (const command of ["cat", "gzip -c"]) {
      const result = attempt("bash", ["-c", `${command} ${archive()} | bin/varve load -q`], {
        env: sandbox.env,
        cwd: new URL("../..", import.meta.url).pathname,
      });
      expect(result.stderr).toBe("");
      expect(result.stdout).toContain("example.com/team/changed:v1");
    }
  });
});
