/** What the API tells of images and unpacked layers: descriptors, chains, blobs, trees for the kernel. */

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { DaemonSandbox, run } from "./daemon-process.js";
import { makeLayout } from "./small-image.js";

const sandbox = new DaemonSandbox();
const { client } = sandbox;

beforeAll(async () => {
  await sandbox.start();
  await sandbox.load(makeLayout(sandbox.path("layout")));
});

afterAll(() => sandbox.dispose());

async function unpack(reference: string): Promise<string> {
  let chainId = "";
  for await (const message of client.unpackImage({ reference })) chainId = message.chainId;
  return chainId;
}

it("an image has target, manifest and config descriptors, and says which platforms are here", async () => {
  const found = await client.inspectImage({ reference: "small" });
  const config = JSON.parse(Buffer.from(found.config).toString());
  expect(found.target).toEqual(found.manifestDescriptor);
  expect(found.configDescriptor).toMatchObject({
    digest: found.image?.id,
    size: BigInt(found.config.length),
    mediaType: "application/vnd.oci.image.config.v1+json",
  });
  expect(found.diffIds).toEqual(config.rootfs.diff_ids);
  expect(found.chainIds[0]).toBe(found.diffIds[0]);
  const { platform } = found;
  expect(platform).toMatch(/^linux\//);
  expect(found.platforms).toMatchObject([
    { platform, manifest: found.target, config: found.configDescriptor, complete: true },
  ]);
  await expect(
    client.inspectImage({ reference: "small", platform: "linux/mips64le" }),
  ).rejects.toMatchObject({ code: "NOT_FOUND" });
});

it("a chain leads to its blob, its diff ID and its parent, unpacked or committed", async () => {
  await unpack("small");
  const { chainIds, diffIds, layers } = await client.inspectImage({ reference: "small" });
  for (const [position, chainId] of chainIds.entries()) {
    expect((await client.inspectSnapshot({ chainId })).snapshot).toMatchObject({
      chainId,
      diffId: diffIds[position],
      parent: chainIds[position - 1] ?? "",
      blob: layers[position]!.digest,
      blobPresent: true,
    });
  }
  const { target } = await sandbox.mount({ image: "small", name: "v" });
  writeFileSync(path.join(target, "data/new"), "new");
  const made = await sandbox.commit({ name: "v", reference: "made:1" });
  await sandbox.unpack("made:1");
  await client.removeView({ name: "v", force: true });
  expect((await client.inspectSnapshot({ chainId: made.chainId })).snapshot).toMatchObject({
    parent: chainIds.at(-1),
    diffId: made.diffId,
    blob: made.layer?.digest,
  });
  await expect(client.inspectSnapshot({ chainId: "x" })).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
  });
  await expect(
    client.inspectSnapshot({ chainId: `sha256:${"0".repeat(64)}` }),
  ).rejects.toMatchObject({ code: "NOT_FOUND" });
});

it("the kernel's overlayfs mounts the unpacked layers, and shows what a view shows", async () => {
  await unpack("small");
  const { target } = await sandbox.mount({ image: "small", name: "w" });
  execFileSync(
    "sh",
    ["-c", "rm data/file; mkdir data/more; echo x > data/more/x; rm -r data/deep"],
    {
      cwd: target,
    },
  );
  await sandbox.commit({ name: "w", reference: "three:1" });
  await sandbox.unpack("three:1");
  await client.removeView({ name: "w", force: true });
  const { lowerDirs } = await client.inspectImage({ reference: "three:1" });
  expect(lowerDirs).toHaveLength(3);
  const kernel = sandbox.path("kernel");
  mkdirSync(kernel);
  execFileSync("mount", [
    "-t",
    "overlay",
    "overlay",
    "-o",
    `ro,lowerdir=${lowerDirs.join(":")}`,
    kernel,
  ]);
  try {
    const ours = (await sandbox.mount({ image: "three:1", name: "ours", readOnly: true })).target;
    expect(run("diff", "-r", "--no-dereference", kernel, ours)).toEqual({ status: 0, output: "" });
    expect(readFileSync(path.join(kernel, "data/more/x"), "utf8")).toBe("x\n");
  } finally {
    execFileSync("umount", [kernel]);
    await client.removeView({ name: "ours", force: true });
  }
});
