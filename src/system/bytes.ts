/**
 * File names, paths and symlink targets are bytes, not text. From tar to kernel they travel as
 * `ByteString`: a JavaScript string in which each character holds one byte (latin1). Such a string
 * is a cheap Map key, compares in byte order, and crosses into native code without an allocation.
 * Text becomes a ByteString in `toBytes`, and a ByteString becomes text in `display`, nowhere else.
 */

declare const bytes: unique symbol;

/** Raw bytes, one per character, each character in U+0000 to U+00FF. */
export type ByteString = string & { readonly [bytes]: true };

/** The bytes of `text` in UTF-8. */
export function toBytes(text: string): ByteString {
  // ASCII, the common case, is its own latin1 form.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the class is "any ASCII"
  if (/^[\x00-\x7f]*$/.test(text)) return text as ByteString;
  return Buffer.from(text, "utf8").toString("latin1") as ByteString;
}

/** The bytes of a buffer (copied). */
export function fromBuffer(buffer: Buffer, start = 0, end = buffer.length): ByteString {
  return buffer.toString("latin1", start, end) as ByteString;
}

/** A new buffer with the same bytes. */
export function toBuffer(name: ByteString): Buffer {
  return Buffer.from(name, "latin1");
}

/** The bytes as UTF-8 text for a person; bytes that are not UTF-8 become U+FFFD. */
export function display(name: ByteString): string {
  return Buffer.from(name, "latin1").toString("utf8");
}

/** Joins two paths with one slash; an empty side adds none. */
export function joinBytes(parent: ByteString, name: ByteString): ByteString {
  if (parent === "") return name;
  if (name === "") return parent;
  return `${parent}/${name}` as ByteString;
}
