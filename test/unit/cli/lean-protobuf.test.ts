/** The bundle's small protobuf against the library: same bytes, same objects, for every message. */

import {
  create,
  type DescField,
  type DescMessage,
  fromBinary,
  type Message,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as lean from "../../../src/cli/lean-protobuf/codegen.js";
import * as codec from "../../../src/cli/lean-protobuf/messages.js";
import * as pb from "../../../src/services/gen/varve/v1/varve_pb.js";

const file = pb.file_varve_v1_varve;
const leanFile = lean.fileDesc(
  Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)).toString("base64"),
  [lean.file_google_protobuf_timestamp],
);

const INT64 = { min: -(2n ** 63n), max: 2n ** 63n - 1n };

function scalarOf(type: ScalarType): fc.Arbitrary<unknown> {
  switch (type) {
    case ScalarType.STRING:
      // The library's decoder takes a byte order mark away at the beginning.
      return fc.string({ unit: "binary", maxLength: 8 }).filter((text) => text[0] !== "\ufeff");
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 8 });
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.INT64:
      return fc.bigInt(INT64);
    case ScalarType.INT32:
      return fc.integer();
    default:
      throw new Error(`no values for scalar type ${type}`);
  }
}

function fieldValue(field: DescField): fc.Arbitrary<unknown> {
  if (field.fieldKind === "scalar") return scalarOf(field.scalar);
  if (field.fieldKind === "enum") return fc.constantFrom(...field.enum.values.map((v) => v.number));
  if (field.fieldKind === "message") return initOf(field.message);
  if (field.fieldKind === "map") {
    return fc.dictionary(fc.string({ maxLength: 4 }), fc.string({ maxLength: 4 }), {
      noNullPrototype: true,
    });
  }
  const item = field.listKind === "message" ? initOf(field.message) : undefined;
  const scalar = field.listKind === "scalar" ? scalarOf(field.scalar) : fc.constantFrom(0, 1, 2);
  return fc.array(item ?? scalar, { maxLength: 3 });
}

function initOf(message: DescMessage): fc.Arbitrary<Record<string, unknown>> {
  const model = Object.fromEntries(message.fields.map((f) => [f.localName, fieldValue(f)]));
  return fc.record(model, { requiredKeys: [] });
}

const messages = file.messages.map((real, position) => ({
  name: real.name,
  real,
  small: lean.messageDesc(leanFile, position),
}));

describe("the bundle's protobuf", () => {
  it.each(messages)("encodes and decodes $name as the library does", ({ real, small }) => {
    fc.assert(
      fc.property(initOf(real), (init) => {
        const message = create(real, init as never) as Message & Record<string, unknown>;
        const bytes = toBinary(real, message);
        expect(codec.create(small, init)).toEqual(message);
        expect(Buffer.from(codec.toBinary(small, codec.create(small, init)))).toEqual(
          Buffer.from(bytes),
        );
        expect(codec.fromBinary(small, bytes)).toEqual(fromBinary(real, bytes));
      }),
      { numRuns: 30 },
    );
  });

  it("names every method with its messages and path as the library does", () => {
    const small = lean.serviceDesc(leanFile, 0);
    expect(small.typeName).toBe(pb.Varve.typeName);
    expect(Object.keys(small.method)).toEqual(Object.keys(pb.Varve.method));
    for (const method of pb.Varve.methods) {
      const own = small.method[method.localName];
      expect(own?.name).toBe(method.name);
      expect(own?.input.typeName).toBe(method.input.typeName);
      expect(own?.output.typeName).toBe(method.output.typeName);
    }
  });

  it("knows the well-known timestamp", () => {
    const small = lean.messageDesc(lean.file_google_protobuf_timestamp, 0);
    const time = { seconds: -62_135_596_800n, nanos: 999_999_999 };
    expect(Buffer.from(codec.toBinary(small, codec.create(small, time)))).toEqual(
      Buffer.from(toBinary(TimestampSchema, create(TimestampSchema, time))),
    );
  });

  it("drops fields of a newer daemon", () => {
    const small = messages.find(({ name }) => name === "VersionResponse")?.small;
    if (small === undefined) throw new Error("no VersionResponse");
    // Field 1 = "1", then unknown numbers 900 (varint), 901 (bytes), 902 (64 bits), 903 (32 bits).
    const bytes = Buffer.concat([
      Buffer.from([0x0a, 1, 0x31, 0xa0, 0x38, 0x96, 0x01, 0xaa, 0x38, 2, 1, 2]),
      Buffer.from([0xb1, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0xbd, 0x38, 1, 2, 3, 4]),
    ]);
    expect(codec.fromBinary(small, bytes)).toMatchObject({ version: "1" });
  });

  it.each([
    ["a length beyond the end", [0x0a, 5, 0x31]],
    ["an end within a varint", [0x08, 0x80]],
    ["a varint of eleven bytes", [0x08, ...Array(10).fill(0x80), 1]],
    ["a group", [0x0b]],
    ["an end within a fixed field", [0x7d, 1, 2]],
  ])("refuses %s", (_, bytes) => {
    const small = messages.find(({ name }) => name === "VersionResponse")?.small;
    expect(() => codec.fromBinary(small as lean.LeanMessage, Buffer.from(bytes))).toThrowError(
      expect.objectContaining({ code: "CORRUPT_DATA" }),
    );
  });
});
