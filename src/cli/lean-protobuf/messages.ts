/**
 * `create`, `toBinary` and `fromBinary` of `@bufbuild/protobuf` over the lean descriptors of
 * codegen.ts. The messages are the same plain objects; unknown fields are dropped.
 */

import { FieldType, type LeanField, type LeanMessage } from "./codegen.js";
import { LENGTH_DELIMITED, VARINT, WireReader, WireWriter } from "./wire.js";

type Message = Record<string, unknown>;

function isMap(field: LeanField): boolean {
  return field.type === FieldType.MESSAGE && field.isRepeated && field.message().isMapEntry;
}

function isBigint(type: number): boolean {
  return type === FieldType.INT64 || type === FieldType.UINT64;
}

function zeroScalar(type: number): unknown {
  if (isBigint(type)) return 0n;
  if (type === FieldType.BOOL) return false;
  if (type === FieldType.STRING) return "";
  return type === FieldType.BYTES ? new Uint8Array(0) : 0;
}

function zeroOf(field: LeanField): unknown {
  if (isMap(field)) return {};
  if (field.isRepeated) return [];
  if (field.isOptional || field.type === FieldType.MESSAGE) return undefined;
  return zeroScalar(field.type);
}

/** A whole message from some of its fields; the values are taken over, not copied. */
export function create(desc: LeanMessage, init: Message = {}): Message {
  if (init.$typeName === desc.typeName) return init;
  const message: Message = { $typeName: desc.typeName };
  for (const field of desc.fields) {
    const given = init[field.localName] ?? undefined;
    const value = given === undefined ? zeroOf(field) : completeValue(field, given);
    if (value !== undefined) message[field.localName] = value;
  }
  return message;
}

function completeValue(field: LeanField, value: unknown): unknown {
  if (field.type !== FieldType.MESSAGE || isMap(field)) return value;
  if (!field.isRepeated) return create(field.message(), value as Message);
  return (value as Message[]).map((item) => create(field.message(), item));
}

/** Encodes a message. */
export function toBinary(desc: LeanMessage, message: Message): Uint8Array<ArrayBuffer> {
  const writer = new WireWriter();
  for (const field of desc.fields) writeField(writer, field, message[field.localName]);
  return writer.finish();
}

function writeField(writer: WireWriter, field: LeanField, value: unknown): void {
  if (value === undefined || value === null) return;
  if (isMap(field)) {
    for (const [key, item] of Object.entries(value as Message)) {
      const entry = writeMapEntry(field.message(), key, item);
      writer.tag(field.number, LENGTH_DELIMITED).delimited(entry);
    }
  } else if (field.isRepeated) {
    writeList(writer, field, value as readonly unknown[]);
  } else if (field.isOptional || field.type === FieldType.MESSAGE || !isZero(value)) {
    writeValue(writer, field, value);
  }
}

function isZero(value: unknown): boolean {
  return value instanceof Uint8Array ? value.length === 0 : !value;
}

/** A map's key and value are written even when they are zero. */
function writeMapEntry(entry: LeanMessage, key: string, item: unknown): Uint8Array {
  const writer = new WireWriter();
  const [keyField, valueField] = entry.fields;
  if (keyField !== undefined) writeValue(writer, keyField, key);
  if (valueField !== undefined) writeValue(writer, valueField, item);
  return writer.finish();
}

function writeList(writer: WireWriter, field: LeanField, values: readonly unknown[]): void {
  const isPacked = ![FieldType.STRING, FieldType.BYTES, FieldType.MESSAGE].some(
    (type) => type === field.type,
  );
  if (!isPacked) {
    for (const value of values) writeValue(writer, field, value);
  } else if (values.length > 0) {
    const packed = new WireWriter();
    for (const value of values) packed.varint(BigInt(value as number));
    writer.tag(field.number, LENGTH_DELIMITED).delimited(packed.finish());
  }
}

function writeValue(writer: WireWriter, field: LeanField, value: unknown): void {
  const { number, type } = field;
  if (type === FieldType.STRING) {
    writer.tag(number, LENGTH_DELIMITED).delimited(Buffer.from(value as string, "utf8"));
  } else if (type === FieldType.BYTES) {
    writer.tag(number, LENGTH_DELIMITED).delimited(value as Uint8Array);
  } else if (type === FieldType.MESSAGE) {
    const bytes = toBinary(field.message(), value as Message);
    writer.tag(number, LENGTH_DELIMITED).delimited(bytes);
  } else {
    writer.tag(number, VARINT).varint(BigInt(value as number | bigint | boolean));
  }
}

/**
 * Decodes a message. Byte fields are copies.
 *
 * @throws CorruptDataError malformed
 */
export function fromBinary(desc: LeanMessage, bytes: Uint8Array): Message {
  const message = create(desc);
  mergeInto(message, desc, bytes);
  return message;
}

function mergeInto(message: Message, desc: LeanMessage, bytes: Uint8Array): void {
  const reader = new WireReader(bytes);
  while (!reader.isAtEnd) {
    const tag = reader.int32();
    const wireType = tag & 7;
    const field = desc.fields.find(({ number }) => number === tag >>> 3);
    if (field === undefined) reader.skip(wireType);
    else readField(reader, wireType, field, message);
  }
}

function readField(reader: WireReader, wireType: number, field: LeanField, message: Message): void {
  const { localName } = field;
  if (isMap(field)) {
    const entry = fromBinary(field.message(), reader.delimited());
    (message[localName] as Message)[String(entry.key)] = entry.value;
  } else if (field.isRepeated) {
    const list = message[localName] as unknown[];
    const isPacked = wireType === LENGTH_DELIMITED && isVarintType(field.type);
    if (!isPacked) list.push(readValue(reader, field, undefined));
    else {
      const packed = new WireReader(reader.delimited());
      while (!packed.isAtEnd) list.push(readValue(packed, field, undefined));
    }
  } else {
    message[localName] = readValue(reader, field, message[localName]);
  }
}

function isVarintType(type: number): boolean {
  return type !== FieldType.STRING && type !== FieldType.BYTES && type !== FieldType.MESSAGE;
}

/** @param before the message that an earlier occurrence of the field left: the two are merged */
function readValue(reader: WireReader, field: LeanField, before: unknown): unknown {
  switch (field.type) {
    case FieldType.STRING:
      return reader.delimited().toString("utf8");
    case FieldType.BYTES:
      return new Uint8Array(reader.delimited());
    case FieldType.MESSAGE: {
      const message = (before ?? create(field.message())) as Message;
      mergeInto(message, field.message(), reader.delimited());
      return message;
    }
    case FieldType.BOOL:
      return reader.varint() !== 0n;
    case FieldType.INT64:
      return BigInt.asIntN(64, reader.varint());
    case FieldType.UINT64:
      return reader.varint();
    case FieldType.UINT32:
      return Number(BigInt.asUintN(32, reader.varint()));
    default:
      return reader.int32();
  }
}
