/** Buffer's own latin1 methods, which node has always exported and @types/node leaves out. */

/** A Buffer whose names can be read and written without looking an encoding up by name. */
export type Latin1Buffer = Buffer & {
  latin1Slice(start: number, end: number): string;
  latin1Write(text: string, offset: number): number;
};

/** A zeroed buffer of `size` bytes that starts its own ArrayBuffer, so that word views line up. */
export function allocateAligned(size: number): Latin1Buffer {
  return Buffer.from(new ArrayBuffer(size)) as Latin1Buffer;
}
