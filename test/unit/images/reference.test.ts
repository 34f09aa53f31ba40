import { describe, expect, it } from "vitest";
import { digestOf } from "../../../src/content/digest.js";
import {
  danglingName,
  familiarReference,
  idPrefixOf,
  isDanglingName,
  isPlainlyId,
  normalizeReference,
  parseReference,
} from "../../../src/images/reference.js";

const digest = digestOf("x");

describe("normalizeReference", () => {
  it.each([
    ["busybox", "docker.io/library/busybox:latest"],
    ["busybox:1.36", "docker.io/library/busybox:1.36"],
    ["library/busybox", "docker.io/library/busybox:latest"],
    ["user/app", "docker.io/user/app:latest"],
    ["docker.io/busybox", "docker.io/library/busybox:latest"],
    ["index.docker.io/busybox", "docker.io/library/busybox:latest"],
    ["docker.io/user/app:v1", "docker.io/user/app:v1"],
    ["quay.io/a/b/c", "quay.io/a/b/c:latest"],
    ["localhost/app", "localhost/app:latest"],
    ["localhost:5000/app", "localhost:5000/app:latest"],
    ["localhost:5000", "docker.io/library/localhost:5000"],
    ["registry:5000/app:v1", "registry:5000/app:v1"],
    ["[::1]:5000/app", "[::1]:5000/app:latest"],
    ["Registry.Example/app", "Registry.Example/app:latest"],
    ["a__b/c-d---e.f", "docker.io/a__b/c-d---e.f:latest"],
    [`busybox@${digest}`, `docker.io/library/busybox@${digest}`],
    [`busybox:1@${digest}`, `docker.io/library/busybox@${digest}`],
    ["app:UPPER_tag.1-x", "docker.io/library/app:UPPER_tag.1-x"],
  ])("makes %s %s", (text, normal) => {
    expect(normalizeReference(text)).toBe(normal);
    expect(normalizeReference(normal)).toBe(normal);
  });

  it.each([
    "",
    ":tag",
    "Busybox",
    "user/App",
    "app:",
    "app:-x",
    `app:${"x".repeat(129)}`,
    "a//b",
    "/a",
    "a/",
    "a..b",
    "-a",
    "a_",
    "a b",
    "https://docker.io/busybox",
    "app@sha256:123",
    "app@",
    "a___b",
    "x".repeat(256),
    "x".repeat(5000),
    "0".repeat(64),
    "host:port/app",
    "-host.example/app",
    "ünicode",
    "<none>@sha256:0",
  ])("refuses %j", (text) => {
    expect(() => normalizeReference(text)).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  });

  it("tells what was meant where upper-case letters are the fault", () => {
    expect(() => normalizeReference("MyApp:1")).toThrow(/lower-case; did you mean "myapp"/);
  });

  it("refuses digests of other algorithms as unsupported", () => {
    expect(() => normalizeReference(`a@sha512:${"0".repeat(128)}`)).toThrow(
      expect.objectContaining({ code: "UNSUPPORTED" }),
    );
  });
});

describe("the familiar form", () => {
  it.each([
    ["docker.io/library/busybox:latest", "busybox:latest"],
    ["docker.io/user/app:1", "user/app:1"],
    ["quay.io/a/b:1", "quay.io/a/b:1"],
    ["docker.io/library/a/b:1", "library/a/b:1"],
    [`docker.io/library/busybox@${digest}`, `busybox@${digest}`],
  ])("of %s is %s", (normal, familiar) => {
    expect(familiarReference(normal)).toBe(familiar);
    expect(normalizeReference(familiar)).toBe(normal);
  });
});

describe("image IDs", () => {
  it("are recognised in full and by their beginning", () => {
    expect(idPrefixOf(digest)).toBe(digest.slice(7));
    expect(idPrefixOf("cafe")).toBe("cafe");
    expect(idPrefixOf("sha256:cafe")).toBe("cafe");
    expect(idPrefixOf("coffee")).toBeUndefined();
    expect(idPrefixOf("CAFE")).toBeUndefined();
    expect(idPrefixOf("0".repeat(65))).toBeUndefined();
  });

  it("are plain when they cannot be names", () => {
    expect(isPlainlyId("cafe")).toBe(false);
    expect(isPlainlyId("sha256:cafe")).toBe(true);
    expect(isPlainlyId("0".repeat(64))).toBe(true);
  });
});

it("keeps the names of nameless images apart from all references", () => {
  expect(isDanglingName(danglingName(digest))).toBe(true);
  expect(() => parseReference(danglingName(digest))).toThrow();
});
