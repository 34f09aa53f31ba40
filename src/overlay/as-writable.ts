/** Attributes of files that their owner may not write to. */

import type { Result } from "../fuse/file-system.js";
import { sys } from "../system/addon.js";
import type { ByteString } from "../system/bytes.js";
import { EACCES } from "../system/errno.js";

const OWNER_MAY_WRITE = 0o200;

/**
 * Does `change` to a file of our own, and once more with the right to write when that is what it lacks: without
 * root, only who may write to a file may give it attributes.
 *
 * @param mode the permissions that the file has, and has afterwards
 */
export function asWritable(
  dirfd: number,
  name: ByteString,
  mode: number,
  change: () => Result,
): Result {
  const result = change();
  if (result !== -EACCES) return result;
  if (sys.fchmodat(dirfd, name, mode | OWNER_MAY_WRITE) < 0) return result;
  const second = change();
  sys.fchmodat(dirfd, name, mode);
  return second;
}
