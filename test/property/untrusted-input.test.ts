/** What outsiders send: whatever it is, it is taken or refused by one of our errors, never by a bug's. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { applyChanges } from "../../src/images/change-instructions.js";
import { parseConfig, parseIndex, parseManifest } from "../../src/images/manifest.js";
import { parsePlatform } from "../../src/images/platform.js";
import { parseReference } from "../../src/images/reference.js";
import { parseChallenges } from "../../src/registry/challenge.js";
import { hostsOf } from "../../src/registry/hosts.js";
import { Varve } from "../../src/services/gen/varve/v1/varve_pb.js";
import { decodeRequest } from "../../src/services/grpc-adapter.js";
import { BaseError } from "../../src/system/errors.js";
import { checkViewName } from "../../src/views/view-names.js";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";
const directory = mkdtempSync(path.join(tmpdir(), "varve-input-"));

afterAll(() => rmSync(directory, { recursive: true }));

function expectTyped(work: () => unknown): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof BaseError)) throw error;
    expect(error.message).not.toBe("");
  }
}

/** Any JSON, often with the names that documents have. */
const { document } = fc.letrec((tie) => ({
  document: fc.oneof(
    { maxDepth: 5 },
    fc.constantFrom(null, true, -1, 2 ** 53, "", "sha256:abc", MANIFEST, INDEX, "linux"),
    fc.string(),
    fc.array(tie("document"), { maxLength: 4 }),
    fc.dictionary(
      fc.constantFrom(
        ...["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size"],
        ...["platform", "os", "architecture", "rootfs", "diff_ids", "type", "history", "created"],
        ...["Env", "Cmd", "User", "Labels", "ExposedPorts", "__proto__", "constructor"],
      ),
      tie("document"),
      { maxKeys: 8 },
    ),
  ),
}));
const bytes = fc.oneof(
  document.map((value) => Buffer.from(JSON.stringify(value))),
  fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array)),
);

describe("input of any kind is taken or refused by a typed error:", () => {
  it("manifests, indexes and configs", () => {
    fc.assert(
      fc.property(bytes, (data) => {
        expectTyped(() => parseManifest(data, MANIFEST, "manifest"));
        expectTyped(() => parseIndex(data, INDEX, "index"));
        expectTyped(() => parseConfig(data, "config"));
      }),
      { numRuns: 1000 },
    );
  });

  it("JSON that is nested deeper than any stack", () => {
    for (const deep of ["[".repeat(200_000), '{"config":'.repeat(200_000)]) {
      expect(() => parseManifest(Buffer.from(deep), MANIFEST, "manifest")).toThrow(BaseError);
    }
  });

  it("references, platforms, view names, challenges, change instructions", () => {
    const text = fc.oneof(
      fc.string(),
      fc.string({ unit: "binary" }),
      fc.string({ maxLength: 5000 }),
    );
    const instruction = fc
      .tuple(fc.constantFrom("CMD", "ENV", "USER", "LABEL", "EXPOSE", "HEALTHCHECK", "?"), text)
      .map((words) => words.join(" "));
    fc.assert(
      fc.property(text, instruction, (input, change) => {
        expectTyped(() => parseReference(input));
        expectTyped(() => parsePlatform(input));
        expectTyped(() => checkViewName(input));
        expectTyped(() => parseChallenges(input));
        expectTyped(() => applyChanges({}, [change]));
      }),
      { numRuns: 600 },
    );
  });

  it("hosts.toml", () => {
    const value = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(["pull", "push"]));
    const line = fc.oneof(
      fc
        .tuple(fc.constantFrom("server", "ca", "client", "capabilities", "skip_verify"), value)
        .map(([name, given]) => `${name} = ${JSON.stringify(given)}`),
      fc.constantFrom('[host."https://mirror.example"]', "[host.x.header]", "[[host]]", "[host]"),
      fc.string(),
    );
    const place = path.join(directory, "certs.d/registry.example");
    mkdirSync(place, { recursive: true });
    const environment = { HOME: directory, VARVE_HOSTS_DIR: path.join(directory, "certs.d") };
    const access = { environment };
    fc.assert(
      fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
        writeFileSync(path.join(place, "hosts.toml"), lines.join("\n"));
        expectTyped(() => hostsOf({ domain: "registry.example", path: "app" }, access));
      }),
      { numRuns: 150 },
    );
  });

  it("messages of the API", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), (data, which) => {
        const method = Varve.methods[which % Varve.methods.length]!;
        expectTyped(() => decodeRequest(method.input, data));
      }),
      { numRuns: 2000 },
    );
  });
});
