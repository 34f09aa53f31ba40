import fc from "fast-check";
import { expect, it } from "vitest";
import {
  bodySize,
  encodeDevice,
  type TarEntry,
  type TarEntryType,
} from "../../src/layers/tar-entry.js";
import { encodeEntryHeader, padding } from "../../src/layers/tar-writer.js";
import type { ByteString } from "../../src/system/bytes.js";
import { archive, parse } from "../unit/layers/tar-fixture.js";

/** Any bytes but NUL. */
const name = (maxLength: number) =>
  fc
    .uint8Array({ minLength: 1, maxLength })
    .map((bytes) => Buffer.from(bytes.map((byte) => (byte === 0 ? 1 : byte))).toString("latin1"));

const path = fc
  .array(
    name(120).map((part) => part.replaceAll("/", "_")),
    { minLength: 1, maxLength: 6 },
  )
  .map((parts) => parts.join("/") as ByteString);

const xattrs = fc
  .uniqueArray(fc.tuple(name(30), fc.uint8Array({ maxLength: 200 })), {
    maxLength: 3,
    selector: ([key]) => key,
  })
  .map((list) =>
    list
      .map(([key, value]) => ({ name: `user.${key}` as ByteString, value: Buffer.from(value) }))
      // Two different names may not spell the same record key order; the writer sorts by key.
      .sort((a, b) => (recordKey(a.name) < recordKey(b.name) ? -1 : 1)),
  );
const recordKey = (text: string) => text.replace(/%/g, "%25").replace(/=/g, "%3D");

const types: TarEntryType[] = [
  "file",
  "hardlink",
  "symlink",
  "character",
  "block",
  "directory",
  "fifo",
];

const sparse = fc
  .array(fc.tuple(fc.nat(1000), fc.integer({ min: 1, max: 1000 })), { maxLength: 30 })
  .map((gaps) => {
    let at = 0;
    return gaps.map(([gap, length]) => {
      const offset = at + gap;
      at = offset + length;
      return { offset, length };
    });
  });

const entry: fc.Arbitrary<TarEntry> = fc
  .record({
    path,
    type: fc.constantFrom(...types),
    mode: fc.nat(0o7777),
    uid: fc.oneof(fc.nat(70_000), fc.integer({ min: 0, max: 0xfffffffe })),
    gid: fc.oneof(fc.nat(70_000), fc.integer({ min: 0, max: 0xfffffffe })),
    size: fc.nat(3000),
    mtimeSec: fc.oneof(fc.nat(), fc.integer({ min: -(2 ** 40), max: 2 ** 40 })),
    mtimeNsec: fc.oneof(fc.constant(0), fc.nat(999_999_999)),
    linkTarget: fc.oneof(name(99), name(1000)),
    rdev: fc.tuple(fc.nat(0xfff), fc.nat(0xfffff)),
    xattrs,
    sparse: fc.option(sparse, { nil: undefined }),
  })
  .map(({ sparse: runs, rdev, ...rest }) => {
    const isLink = rest.type === "hardlink" || rest.type === "symlink";
    const isDevice = rest.type === "character" || rest.type === "block";
    const last = runs?.at(-1);
    const end = last === undefined ? 0 : last.offset + last.length;
    return {
      ...rest,
      path: (rest.type === "directory" ? `${rest.path}/` : rest.path) as ByteString,
      size: rest.type !== "file" ? 0 : rest.size + end,
      linkTarget: (isLink ? rest.linkTarget : "") as ByteString,
      rdev: isDevice ? encodeDevice(...rdev) : 0,
      ...(rest.type === "file" && runs !== undefined ? { sparse: runs } : {}),
    };
  });

it("decoding what was encoded gives the same entries and bodies, however the bytes are cut", () => {
  fc.assert(
    fc.property(
      fc.array(entry, { maxLength: 8 }),
      fc.integer({ min: 1, max: 5000 }),
      (entries, chunkSize) => {
        const bodies = entries.map((item, at) =>
          Buffer.alloc(item.type === "file" ? bodySize(item) : 0, at + 1),
        );
        const parts = entries.flatMap((item, at) => {
          const body = bodies[at] as Buffer;
          return [encodeEntryHeader(item), body, padding(body.length)];
        });
        const found = parse(archive(...parts), { chunkSize });
        expect(found.map((item) => item.entry)).toEqual(entries);
        expect(found.map((item) => item.body)).toEqual(bodies);
      },
    ),
    { numRuns: 300 },
  );
});

it("no bytes at all make the reader fail in other than its own ways", () => {
  const valid = archive(
    encodeEntryHeader({
      path: "a" as ByteString,
      type: "file",
      mode: 0o644,
      uid: 3_000_000,
      gid: 0,
      size: 20,
      mtimeSec: -1,
      mtimeNsec: 1,
      linkTarget: "" as ByteString,
      rdev: 0,
      xattrs: [],
      sparse: [{ offset: 3, length: 5 }],
    }),
    Buffer.alloc(512),
  );
  const edits = fc.array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { maxLength: 6 });
  fc.assert(
    fc.property(edits, fc.nat(valid.length), (changes, length) => {
      const data = Buffer.from(valid.subarray(0, length));
      for (const [at, byte] of changes) if (at < length) data[at] = byte;
      try {
        parse(data);
      } catch (error) {
        expect(["CORRUPT_DATA", "RESOURCE_EXHAUSTED", "UNSUPPORTED"]).toContain(
          (error as { code?: string }).code,
        );
      }
    }),
    { numRuns: 500 },
  );
});
