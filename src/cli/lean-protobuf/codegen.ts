/**
 * What generated code imports from `@bufbuild/protobuf/codegenv2` and `/wkt`, for the command line's
 * bundle only: the same calls, but descriptors that hold just what encoding and decoding need.
 *
 * The library builds a reflection of descriptor.proto before it can read any descriptor; that alone
 * is a third of what `varve images` does after Node has started.
 */

import { UnsupportedError } from "../../system/errors.js";
import { LENGTH_DELIMITED, VARINT, WireReader } from "./wire.js";

/** FieldDescriptorProto.Type, as far as varve.v1 uses it. */
export const FieldType = {
  INT64: 3,
  UINT64: 4,
  INT32: 5,
  BOOL: 8,
  STRING: 9,
  MESSAGE: 11,
  BYTES: 12,
  UINT32: 13,
  ENUM: 14,
} as const;

const SUPPORTED_TYPES = new Set<number>(Object.values(FieldType));

/** One field of a message. */
export interface LeanField {
  readonly localName: string;
  readonly number: number;
  readonly type: number;
  readonly isRepeated: boolean;
  /** Declared `optional`: unset differs from zero. */
  readonly isOptional: boolean;
  /** Fully qualified name of a message or enum type, with a leading dot. */
  readonly typeName: string;
  /** The message type; meaningful when `type` is MESSAGE. */
  message(): LeanMessage;
}

/** A message type. */
export interface LeanMessage {
  readonly kind: "message";
  readonly typeName: string;
  /** In the order of their numbers. */
  readonly fields: readonly LeanField[];
  readonly isMapEntry: boolean;
  readonly nested: readonly LeanMessage[];
}

/** An RPC. */
export interface LeanMethod {
  readonly name: string;
  readonly localName: string;
  readonly parent: LeanService;
  readonly input: LeanMessage;
  readonly output: LeanMessage;
}

/** A service. */
export interface LeanService {
  readonly kind: "service";
  readonly typeName: string;
  readonly method: Readonly<Record<string, LeanMethod>>;
}

/** A file: its top-level declarations in order. */
export interface LeanFile {
  readonly messages: readonly LeanMessage[];
  readonly services: readonly LeanService[];
}

/** Field number → values, each a number for a varint and bytes otherwise. */
type RawMessage = ReadonlyMap<number, readonly (number | Buffer)[]>;

function readRaw(bytes: Uint8Array): RawMessage {
  const reader = new WireReader(bytes);
  const fields = new Map<number, (number | Buffer)[]>();
  while (!reader.isAtEnd) {
    const tag = reader.int32();
    const number = tag >>> 3;
    const wireType = tag & 7;
    if (wireType !== VARINT && wireType !== LENGTH_DELIMITED) {
      reader.skip(wireType);
      continue;
    }
    const value = wireType === VARINT ? reader.int32() : reader.delimited();
    const values = fields.get(number);
    if (values === undefined) fields.set(number, [value]);
    else values.push(value);
  }
  return fields;
}

function numberOf(raw: RawMessage, field: number): number {
  const value = raw.get(field)?.at(-1);
  return typeof value === "number" ? value : 0;
}

function textOf(raw: RawMessage, field: number): string {
  const value = raw.get(field)?.at(-1);
  return value === undefined || typeof value === "number" ? "" : value.toString("utf8");
}

function messagesOf(raw: RawMessage, field: number): RawMessage[] {
  return (raw.get(field) ?? []).flatMap((value) =>
    typeof value === "number" ? [] : [readRaw(value)],
  );
}

/** "compression_level" → "compressionLevel", by protoc-gen-es's rule. */
function camelCase(name: string): string {
  return name.replace(/_+([a-z0-9])/gi, (_, letter: string) => letter.toUpperCase());
}

// Numbers of descriptor.proto's fields.
const FILE = { package: 2, messages: 4, services: 6 };
const MESSAGE = { name: 1, fields: 2, nested: 3, options: 7 };
const MESSAGE_OPTIONS = { mapEntry: 7 };
const FIELD = { name: 1, number: 3, label: 4, type: 5, typeName: 6, optional: 17 };
const SERVICE = { name: 1, methods: 2 };
const METHOD = { name: 1, input: 2, output: 3 };
const LABEL_REPEATED = 3;

type TypeTable = Map<string, LeanMessage>;

// Types of every file read so far, by their name with a leading dot: files name those of others.
const TYPES: TypeTable = new Map();

function typeNamed(name: string): LeanMessage {
  const found = TYPES.get(name);
  if (found === undefined) throw new UnsupportedError(`protobuf message type ${name}: not known`);
  return found;
}

function fieldOf(raw: RawMessage): LeanField {
  const type = numberOf(raw, FIELD.type);
  const typeName = textOf(raw, FIELD.typeName);
  const name = textOf(raw, FIELD.name);
  if (!SUPPORTED_TYPES.has(type)) {
    throw new UnsupportedError(`protobuf field ${name}: type ${type}`);
  }
  return {
    localName: camelCase(name),
    number: numberOf(raw, FIELD.number),
    type,
    isRepeated: numberOf(raw, FIELD.label) === LABEL_REPEATED,
    isOptional: numberOf(raw, FIELD.optional) === 1,
    typeName,
    message: () => typeNamed(typeName),
  };
}

function messageOf(raw: RawMessage, scope: string): LeanMessage {
  const typeName = `${scope}.${textOf(raw, MESSAGE.name)}`;
  const options = messagesOf(raw, MESSAGE.options)[0];
  let fields: LeanField[] | undefined;
  const message: LeanMessage = {
    kind: "message",
    typeName: typeName.slice(1),
    // A command uses two or three of the sixty messages: the others' fields are never read.
    get fields() {
      fields ??= messagesOf(raw, MESSAGE.fields)
        .map(fieldOf)
        .sort((a, b) => a.number - b.number);
      return fields;
    },
    isMapEntry: options !== undefined && numberOf(options, MESSAGE_OPTIONS.mapEntry) === 1,
    nested: messagesOf(raw, MESSAGE.nested).map((inner) => messageOf(inner, typeName)),
  };
  TYPES.set(typeName, message);
  return message;
}

function serviceOf(raw: RawMessage, scope: string): LeanService {
  const method: Record<string, LeanMethod> = {};
  const service: LeanService = {
    kind: "service",
    typeName: `${scope}.${textOf(raw, SERVICE.name)}`.slice(1),
    method,
  };
  for (const rawMethod of messagesOf(raw, SERVICE.methods)) {
    const name = textOf(rawMethod, METHOD.name);
    const localName = name.charAt(0).toLowerCase() + name.slice(1);
    method[localName] = {
      name,
      localName,
      parent: service,
      input: typeNamed(textOf(rawMethod, METHOD.input)),
      output: typeNamed(textOf(rawMethod, METHOD.output)),
    };
  }
  return service;
}

/** Reads a FileDescriptorProto in base64; the files that it imports were read before. */
export function fileDesc(base64: string, _imports?: readonly LeanFile[]): LeanFile {
  const raw = readRaw(Buffer.from(base64, "base64"));
  const scope = `.${textOf(raw, FILE.package)}`;
  const messages = messagesOf(raw, FILE.messages).map((message) => messageOf(message, scope));
  return {
    messages,
    services: messagesOf(raw, FILE.services).map((service) => serviceOf(service, scope)),
  };
}

/** The message at a path of positions: top level, nested, nested in it, … */
export function messageDesc(file: LeanFile, first: number, ...path: number[]): LeanMessage {
  let message = file.messages[first];
  for (const position of path) message = message?.nested[position];
  if (message === undefined) throw new UnsupportedError(`protobuf message ${first}: not in file`);
  return message;
}

/** Generated code wants an object; nothing here reads it. */
export function enumDesc(): { readonly kind: "enum" } {
  return { kind: "enum" };
}

/** The service at a position. */
export function serviceDesc(file: LeanFile, position: number): LeanService {
  const service = file.services[position];
  if (service === undefined) {
    throw new UnsupportedError(`protobuf service ${position}: not in file`);
  }
  return service;
}

/** google/protobuf/timestamp.proto, which every generated file may import. */
export const file_google_protobuf_timestamp: LeanFile = fileDesc(
  // package google.protobuf; message Timestamp { int64 seconds = 1; int32 nanos = 2; }
  "Eg9nb29nbGUucHJvdG9idWYiKwoJVGltZXN0YW1wEg8KB3NlY29uZHMYASABKAMSDQoFbmFub3MYAiABKAU=",
);
