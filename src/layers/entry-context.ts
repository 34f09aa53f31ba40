/** Which entry of which layer is at work, so that errors can name both. */

import { type ByteString, display } from "../system/bytes.js";
import { must } from "../system/errno.js";
import { CorruptDataError } from "../system/errors.js";

/** Shared by the parts that write one layer. */
export class EntryContext {
  readonly subject: string;
  /** The entry's path as the archive spells it. */
  path = "" as ByteString;

  /** @param subject the layer's name in errors */
  constructor(subject: string) {
    this.subject = subject;
  }

  /** Layer and entry for a message. */
  readonly where = (): string => `${this.subject}: entry ${JSON.stringify(display(this.path))}`;

  /** The error of an entry that cannot be applied. */
  corrupt(reason: string): CorruptDataError {
    return new CorruptDataError(`${this.where()}: ${reason}`);
  }

  /** As `must`, naming the entry. */
  check(result: number, syscall: string): number {
    if (result < 0) must(result, syscall, this.where());
    return result;
  }
}
