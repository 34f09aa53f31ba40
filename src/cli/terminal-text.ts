/** Text on a terminal: how wide it is, how to cut it, and how to show bytes that are no text. */

// Zero-width: combining marks, variation selectors, joiners.
const ZERO_WIDTH = /[\p{Mn}\p{Me}\p{Cf}]/u;

/** True for the ranges that Unicode TR11 calls Wide or Fullwidth, as far as terminals agree on them. */
function isWide(code: number): boolean {
  return (
    (code >= 0x1100 && code <= 0x115f) ||
    (code >= 0x2e80 && code <= 0xa4cf) ||
    (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) ||
    (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0xffe0 && code <= 0xffe6) ||
    (code >= 0x1f300 && code <= 0x1faff) ||
    (code >= 0x20000 && code <= 0x3fffd)
  );
}

function characterWidth(character: string): number {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x300) return 1;
  if (ZERO_WIDTH.test(character)) return 0;
  return isWide(code) ? 2 : 1;
}

function isPrintableAscii(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text);
}

/** Columns that `text` takes on a terminal; `text` has no control characters. */
export function displayWidth(text: string): number {
  if (isPrintableAscii(text)) return text.length;
  let width = 0;
  for (const character of text) width += characterWidth(character);
  return width;
}

/** Columns and rows of the terminal behind a stream; 80 by 24 behind none, and behind a serial console, which says 0. */
export function screenSize(stream: { readonly columns?: number; readonly rows?: number }): {
  readonly columns: number;
  readonly rows: number;
} {
  return { columns: stream.columns || 80, rows: stream.rows || 24 };
}

/** `text` cut to `columns`; the last column of a cut text is "…". */
export function truncateText(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  if (columns <= 0) return "";
  let width = 0;
  let kept = "";
  for (const character of text) {
    const next = width + characterWidth(character);
    if (next > columns - 1) break;
    width = next;
    kept += character;
  }
  return `${kept}…`;
}

/** Breaks text at blanks into lines of at most `columns`; a longer word stays whole. */
export function wrapLines(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && displayWidth(longer) > columns) {
      lines.push(line);
      line = word;
    } else line = longer;
  }
  return [...lines, line];
}

const NAMED_ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function hexEscape(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}

// C0, DEL, C1 and the bidirectional overrides, which can make a listing lie about its own order.
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const UNSAFE = /[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/gu;

function escapeUnsafe(text: string): string {
  return text.replace(UNSAFE, (character) => {
    const named = NAMED_ESCAPES[character];
    if (named !== undefined) return named;
    const code = character.codePointAt(0) ?? 0;
    return code < 0x80 ? hexEscape(code) : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** Text from elsewhere (a label, a daemon's message) on one line and without control characters. */
export function printableText(text: string): string {
  return escapeUnsafe(text);
}

/**
 * An absolute path on one line. A path that is UTF-8 without control characters stays as it is;
 * any other is put in double quotes with C escapes (`"/tmp/a\n\xff"`), the way git does it: since a
 * path starts with a slash, two different paths never look the same.
 */
export function printablePath(bytes: Uint8Array): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const text = utf8Text(buffer);
  if (text !== undefined && text.search(UNSAFE) === -1) return text;
  return `"${escapeQuoted(buffer)}"`;
}

/** The text whose UTF-8 the bytes are, or undefined when they are not UTF-8. */
export function utf8Text(bytes: Uint8Array): string | undefined {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const text = buffer.toString("utf8");
  // Decoding maps bad bytes to U+FFFD; when nothing was lost, encoding gives the same bytes back.
  return Buffer.from(text, "utf8").equals(buffer) ? text : undefined;
}

/** Escapes byte by byte what does not decode, and keeps the valid stretches between. */
function escapeQuoted(buffer: Buffer): string {
  let result = "";
  let position = 0;
  while (position < buffer.length) {
    const length = utf8SequenceLength(buffer, position);
    if (length === 0) {
      result += hexEscape(buffer[position] ?? 0);
    } else {
      const text = buffer.toString("utf8", position, position + length);
      result += text === '"' || text === "\\" ? `\\${text}` : escapeUnsafe(text);
    }
    position += Math.max(1, length);
  }
  return result;
}

/** Length of the valid UTF-8 sequence at `position`, 0 when there is none. */
function utf8SequenceLength(buffer: Buffer, position: number): number {
  const first = buffer[position] ?? 0;
  if (first < 0x80) return 1;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (length === 0 || position + length > buffer.length) return 0;
  return utf8Text(buffer.subarray(position, position + length)) === undefined ? 0 : length;
}
