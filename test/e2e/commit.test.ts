/** `varve commit` with all its options, and its config beside buildah's of the same change. */

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compareTrees, readTree } from "../tools/tree.js";
import { ContainerStorage } from "./peers.js";
import { makeImage, run, Sandbox, shell } from "./sandbox.js";

type Json = Record<string, unknown>;

let sandbox: Sandbox;
let view: string;
let count = 0;

beforeAll(() => {
  sandbox = new Sandbox("commit");
  makeImage("busybox", sandbox.path("busybox.tar"));
  sandbox.varve("load", "-q", "-i", sandbox.path("busybox.tar"));
  view = sandbox.mount("busybox", "work");
  shell(`cd ${view}; echo new > etc/new; rm etc/hostname; mkdir srv; ln bin/ls srv/ls
         find etc srv -exec touch -hd @1700000000 {} +`);
});

afterAll(() => sandbox?.dispose());

/** Commits the view under a name of its own; the image as an OCI layout, its manifest and config. */
function commit(...flags: string[]): { name: string; id: string; manifest: Json; config: Json } {
  const name = `made${++count}`;
  const id = sandbox.varve("commit", "-q", "work", name, ...flags);
  const layout = sandbox.path(name);
  sandbox.varve("save", "-q", name, "-o", `${layout}.tar`);
  run("tar", ["-C", sandbox.makeDirectory(name), "-xf", `${layout}.tar`]);
  const json = (file: string) => JSON.parse(readFileSync(join(layout, file), "utf8")) as Json;
  const blob = (descriptor: unknown) =>
    json(`blobs/sha256/${(descriptor as { digest: string }).digest.slice(7)}`);
  const manifest = blob((json("index.json").manifests as unknown[])[0]);
  return { name, id, manifest, config: blob(manifest.config) };
}

const layersOf = ({ manifest }: { manifest: Json }) => manifest.layers as { mediaType: string }[];

describe("commit", () => {
  it("gives the same image twice in a row and side by side", async () => {
    const first = commit();
    expect(commit().id).toBe(first.id);
    shell(
      `for i in 1 2 3; do varve commit -q work side$i > ${sandbox.path("side")}$i & done; wait
       cat ${sandbox.path("side")}*`,
      { env: { ...sandbox.env, PATH: `${process.cwd()}/bin:${process.env.PATH}` } },
    )
      .trim()
      .split("\n")
      .forEach((id, _, ids) => {
        expect([id, ids.length]).toEqual([first.id, 3]);
      });
  });

  it("--squash-all makes one layer that shows what the view shows", () => {
    const { name, manifest, config } = commit("--squash-all");
    expect(layersOf({ manifest })).toHaveLength(1);
    expect(config.history).toHaveLength(1);
    const again = sandbox.mount(name, "squashed");
    try {
      expect(compareTrees(readTree(again), readTree(view))).toEqual([]);
    } finally {
      sandbox.varve("umount", "squashed");
      sandbox.varve("rm", "squashed");
    }
    expect(layersOf(commit("--squash")).length).toBe(layersOf(commit()).length);
  });

  it("--omit-history, --format, --annotation and --timestamp do what they say", () => {
    const options = ["--annotation", "org.example=a=b", "--timestamp", "1600000000"];
    const { manifest, config } = commit("--omit-history", ...options);
    expect(config).not.toHaveProperty("history");
    expect(config.created).toBe("2020-09-13T12:26:40Z");
    expect(manifest.annotations).toMatchObject({ "org.example": "a=b" });
    const docker = commit("--format", "docker");
    expect(docker.manifest.mediaType).toContain("docker.distribution");
    expect(layersOf(docker).at(-1)?.mediaType).toContain("docker.image.rootfs");
    const refused = sandbox.try("commit", "work", "-q", "--format", "docker", "--compression=zstd");
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toContain("zstd");
  });

  it("what changed in attributes only comes with its data, and nothing of the view's own records", () => {
    const here = sandbox.mount("busybox", "marks");
    shell(`cd ${here}; setfattr -n user.note -v seen etc/passwd; chmod 600 etc/group
           mv usr usr2; rm -r home; mkdir home; echo x >> bin/busybox; ln etc/passwd etc/second
           truncate -s 20M sparse; printf data | dd of=sparse bs=1 seek=9000000 conv=notrunc status=none`);
    sandbox.varve("commit", "-q", "--compression", "none", "marks", "marked");
    const [image] = JSON.parse(sandbox.varve("inspect", "marked"));
    const { digest } = image.Layers.at(-1);
    const blob = sandbox.path("root/blobs/sha256", digest.slice(7));
    const tar = readFileSync(blob, "latin1");
    expect(tar).toContain("SCHILY.xattr.user.note=seen");
    expect(tar).not.toMatch(/overlay|varve/);
    const listing = run("tar", ["-tvf", blob]);
    expect(listing).toMatch(/^-rw-------.* etc\/group$/m);
    for (const name of ["etc/passwd", "etc/group"]) {
      expect(run("tar", ["-xOf", blob, name])).toBe(readFileSync(join(here, name), "utf8"));
    }
    const unpacked = sandbox.mount("marked", "marks-again");
    expect(compareTrees(readTree(unpacked), readTree(here))).toEqual([]);
  });

  it("of one platform of a multi-platform image keeps that platform", () => {
    const layout = sandbox.path("multi");
    run("tar", ["-C", sandbox.makeDirectory("multi"), "-xf", sandbox.path("busybox.tar")]);
    const platforms = addPlatform(layout, "s390x");
    sandbox.varve("load", "-q", "--all-platforms", "-i", layout);
    const here = sandbox.mount("multi", "other", "--platform", "linux/s390x");
    writeFileSync(join(here, "new"), "new");
    sandbox.varve("commit", "-q", "other", "multi:new");
    const [image] = JSON.parse(sandbox.varve("inspect", "multi:new"));
    expect([image.Os, image.Architecture]).toEqual(["linux", "s390x"]);
    expect(image.Layers).toHaveLength(2);
    sandbox.varve("save", "-q", "multi", "-o", sandbox.path("multi.tar"));
    const index = run("tar", ["-xOf", sandbox.path("multi.tar"), "index.json"]);
    expect(index).toContain(platforms);
  });

  it("says what it leaves out", () => {
    shell(`cd ${view}; mknod srv/white c 0 0
           perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "srv/sock", Listen => 1)'`);
    const { status, stdout, stderr } = sandbox.try("commit", "-q", "work");
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^sha256:\w{64}\n$/)]);
    expect(stderr).toMatch(/^varve: warning: srv\/sock: left out;/m);
    expect(stderr).toMatch(/^varve: warning: srv\/white: left out;/m);
    shell(`cd ${view}; rm srv/sock srv/white; touch -d @1700000000 srv`);
  });
});

it("the config is buildah's of the same change, apart from what docs/commit.md names", () => {
  const peers = new ContainerStorage(sandbox);
  try {
    peers.buildah("pull", `oci-archive:${sandbox.path("busybox.tar")}`);
    const container = peers.buildah("from", peers.buildah("images", "-q").split("\n")[0]!);
    const mounted = peers.buildah("mount", container);
    shell(`echo new > ${mounted}/etc/new`);
    const settings = ["--cmd", "sleep 1", "--env", "A=b", "--label", "l=m", "--user", "nobody"];
    const more = ["--port", "80/tcp", "--workingdir", "/srv", "--stop-signal", "SIGINT"];
    peers.buildah("config", ...settings, ...more, "--author", "me", container);
    const output = sandbox.path("buildah");
    peers.buildah("commit", "-q", "--timestamp", "1700000000", container, `oci:${output}:latest`);
    const image = run("skopeo", ["inspect", "--config", "--raw", `oci:${output}:latest`]);
    writeFileSync(sandbox.path("buildah.json"), image);
    const theirs = JSON.parse(image) as Json;
    const changes = ['CMD ["sleep","1"]', "ENV A=b", "LABEL l=m", "USER nobody", "EXPOSE 80"];
    const flags = [...changes, "WORKDIR /srv", "STOPSIGNAL SIGINT"].flatMap((text) => ["-c", text]);
    const ours = commit("--author", "me", "--timestamp", "1700000000", ...flags).config;
    expect(withoutNamed(ours)).toEqual(withoutNamed(theirs));
  } finally {
    peers.dispose();
  }
});

/** Gives the one image of a layout a twin for another machine, in an image index; the index' digest. */
function addPlatform(layout: string, architecture: string): string {
  const read = (file: string) => JSON.parse(readFileSync(join(layout, file), "utf8"));
  const blobPath = (digest: string) => `blobs/sha256/${digest.slice(7)}`;
  const write = (mediaType: string, value: unknown) => {
    const data = JSON.stringify(value);
    const digest = `sha256:${createHash("sha256").update(data).digest("hex")}`;
    writeFileSync(join(layout, blobPath(digest)), data);
    return { mediaType, digest, size: data.length };
  };
  const [first] = read("index.json").manifests;
  const manifest = read(blobPath(first.digest));
  const config = read(blobPath(manifest.config.digest));
  const twin = write(first.mediaType, {
    ...manifest,
    config: write(manifest.config.mediaType, { ...config, architecture }),
  });
  const { mediaType, digest, size } = first;
  const index = write("application/vnd.oci.image.index.v1+json", {
    schemaVersion: 2,
    manifests: [
      { mediaType, digest, size, platform: { os: "linux", architecture: config.architecture } },
      { ...twin, platform: { os: "linux", architecture } },
    ],
  });
  const annotations = { "io.containerd.image.name": "docker.io/library/multi:latest" };
  const manifests = [{ ...index, annotations }];
  writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
  return index.digest;
}

/** Without what docs/commit.md says differs: each tool's own words and digests, and buildah's label. */
function withoutNamed(config: Json): Json {
  const { history, rootfs, created, ...rest } = config;
  const { Labels, ...settings } = rest.config as { Labels?: Record<string, string> };
  const labels = Object.fromEntries(
    Object.entries(Labels ?? {}).filter(([key]) => key !== "io.buildah.version"),
  );
  const time = new Date(created as string).getTime();
  const layers = (rootfs as { diff_ids: string[] }).diff_ids.length;
  return { ...rest, time, layers, config: { ...settings, Labels: labels } };
}
