/** `varve commit` with all its options, and its config beside buildah's of the same change. */

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
