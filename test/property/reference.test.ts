import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { digestOf } from "../../src/content/digest.js";
import { expandWord, splitWords } from "../../src/images/change-words.js";
import { formatPlatform, normalizePlatform, parsePlatform } from "../../src/images/platform.js";
import {
  familiarReference,
  formatReference,
  normalizeReference,
  parseReference,
} from "../../src/images/reference.js";

const alnum = fc.stringMatching(/^[a-z0-9]{1,8}$/);
const partWith = (...separators: string[]) =>
  fc
    .tuple(alnum, fc.array(fc.tuple(fc.constantFrom(...separators), alnum), { maxLength: 3 }))
    .map(([first, rest]) => first + rest.map(([mark, word]) => mark + word).join(""));
const pathPart = partWith(".", "_", "__", "-", "---");
const domain = fc.oneof(
  fc.constantFrom("docker.io", "localhost", "localhost:5000", "[fe80::1]:443", "Host.example"),
  fc
    .tuple(
      fc.stringMatching(/^[a-z]([a-z0-9-]{0,6}[a-z0-9])?$/),
      fc.integer({ min: 1, max: 65535 }),
    )
    .map(([host, port]) => `${host}.example:${port}`),
);
// Without a domain, a first part with a dot would be one.
const head = fc.oneof(domain, partWith("_", "__", "-"));
const path = fc.oneof(
  pathPart,
  fc
    .tuple(head, fc.array(pathPart, { minLength: 1, maxLength: 4 }))
    .map(([first, rest]) => [first, ...rest].join("/")),
);
const tag = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/).map((text) => `:${text}`);
const digest = fc.string().map((text) => `@${digestOf(text)}`);
const reference = fc
  .tuple(path, fc.option(tag, { nil: "" }), fc.option(digest, { nil: "" }))
  .map((parts) => parts.join(""));

describe("references", () => {
  it("have one normal form, which is its own normal form", () => {
    fc.assert(
      fc.property(reference, (text) => {
        const normal = normalizeReference(text);
        expect(normalizeReference(normal)).toBe(normal);
        const parsed = parseReference(normal);
        expect(parsed.tag === undefined).toBe(parsed.digest !== undefined);
      }),
    );
  });

  it("are printed as they are parsed", () => {
    fc.assert(
      fc.property(reference, (text) => {
        const parsed = parseReference(text);
        expect(parseReference(formatReference(parsed))).toEqual(parsed);
      }),
    );
  });

  it("mean the same in their familiar form", () => {
    fc.assert(
      fc.property(reference, (text) => {
        const normal = normalizeReference(text);
        expect(normalizeReference(familiarReference(normal))).toBe(normal);
      }),
    );
  });

  it("are parsed or refused with a code, whatever the text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 300 }), (text) => {
        try {
          parseReference(text);
        } catch (error) {
          expect(error).toMatchObject({ code: /INVALID_ARGUMENT|UNSUPPORTED/ });
        }
      }),
    );
  });
});

describe("platforms", () => {
  it("have one normal form, which is printed and parsed back", () => {
    const names = fc.record({
      os: fc.constantFrom("linux", "Linux", "macos", "windows"),
      architecture: fc.constantFrom("x86_64", "amd64", "aarch64", "arm64", "arm", "armhf", "i386"),
      variant: fc.constantFrom("", "v7", "8", "v8", "v1", "v3", "6"),
    });
    fc.assert(
      fc.property(names, (platform) => {
        const normal = normalizePlatform(platform);
        expect(normalizePlatform(normal)).toEqual(normal);
        expect(parsePlatform(formatPlatform(normal))).toEqual(normal);
      }),
    );
  });
});

describe("words of change instructions", () => {
  const none = () => undefined;

  it("come back out of single quotes as they went in", () => {
    fc.assert(
      fc.property(
        fc.string().filter((text) => !text.includes("'")),
        (text) => {
          expect(expandWord(`'${text}'`, none)).toBe(text);
          expect(splitWords(`a '${text}' b`)).toEqual(["a", `'${text}'`, "b"]);
        },
      ),
    );
  });

  it("come back out of double quotes when escaped", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const escaped = text.replace(/["$\\]/g, "\\$&");
        expect(expandWord(`"${escaped}"`, none)).toBe(text);
      }),
    );
  });
});
