/**
 * What FUSE of the running kernel can do, told by its version: the tests' own word for it, not varve's.
 * Where it can do less, tests claim what docs/compatibility.md promises there.
 */

import { release } from "node:os";

const [major = 0, minor = 0] = release().split(".").map(Number);

/** Linux 6.9: file data by passthrough, and requests sent again whose daemon has died. */
export const KERNEL_IS_RECENT = major > 6 || (major === 6 && minor >= 9);
