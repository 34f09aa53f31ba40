/** What an image is, asked of its registry without its layers. */

import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Descriptor } from "../../../src/content/descriptor.js";
import { DaemonSandbox } from "../daemon/daemon-process.js";
import { FakeRegistry, OCI_MANIFEST, sha256 } from "./fake-registry.js";

const access = { environment: { HOME: "/nowhere", DOCKER_CONFIG: "/nowhere" } };
const OCI = "application/vnd.oci.image";

const daemon = new DaemonSandbox();
let fake: FakeRegistry;

beforeAll(async () => {
  fake = await FakeRegistry.start();
  await daemon.start();
});

afterAll(async () => {
  await daemon.dispose();
  await fake.dispose();
});

function addImage(tag: string, architecture: string): Descriptor {
  const tar = Buffer.alloc(1024, architecture);
  const document = {
    ...{ os: "linux", architecture, config: { Cmd: ["run"] } },
    rootfs: { type: "layers", diff_ids: [sha256(tar)] },
  };
  const config = fake.addBlob(Buffer.from(JSON.stringify(document)), `${OCI}.config.v1+json`);
  const layers = [fake.addBlob(gzipSync(tar), `${OCI}.layer.v1.tar+gzip`)];
  return fake.addManifest(tag, { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers });
}

it("the config of a reference comes without its layers, and no image is left", async () => {
  const manifests = ["amd64", "arm64"].map((architecture) => ({
    ...addImage(architecture, architecture),
    platform: { os: "linux", architecture },
  }));
  const type = `${OCI}.index.v1+json`;
  const index = fake.addManifest("all", { schemaVersion: 2, mediaType: type, manifests }, type);
  const reference = `${fake.domain}/team/app:all`;
  const request = { reference, platform: "linux/arm64", access };
  await expect(daemon.client.inspectImage(request)).rejects.toMatchObject({ code: "NOT_FOUND" });
  expect(fake.requests).toEqual([]);
  const found = await daemon.client.inspectImage({ ...request, pull: "missing" });
  expect(JSON.parse(Buffer.from(found.config).toString())).toMatchObject({
    architecture: "arm64",
    config: { Cmd: ["run"] },
  });
  expect(found.target?.digest).toBe(index.digest);
  expect(found.manifestDescriptor?.digest).toBe(manifests[1]!.digest);
  expect(found.platforms.map((one) => [one.platform, one.complete])).toEqual([
    ["linux/amd64", false],
    ["linux/arm64", false],
  ]);
  expect(found.lowerDirs).toEqual([]);
  const layer = found.layers[0]!.digest;
  expect(fake.requests.filter((one) => one.includes(layer))).toEqual([]);
  expect((await daemon.client.listImages({})).images).toEqual([]);
  await daemon.client.prune({});
  expect((await daemon.client.info()).contentBytes).toBe(0n);
});

it("a policy of always asks again, and never asks nobody", async () => {
  addImage("moving", "amd64");
  const reference = `${fake.domain}/team/app:moving`;
  const request = { reference, platform: "linux/amd64", access };
  const pull = { reference, access, platforms: ["linux/amd64"], noUnpack: true };
  for await (const _ of daemon.client.pullImage(pull));
  const before = fake.requests.length;
  await daemon.client.inspectImage({ ...request, pull: "missing" });
  await daemon.client.inspectImage({ ...request, pull: "never" });
  expect(fake.requests).toHaveLength(before);
  const found = await daemon.client.inspectImage({ ...request, pull: "always" });
  expect(found.image?.repoTags).toEqual([reference]);
});
