/**
 * The first request of every connection: what the kernel offers, and what we take.
 *
 * Not taken, and why: WRITEBACK_CACHE (a write must be in the upper directory when write(2)
 * returns, since commit reads it there; and passthrough does not go with it), READDIRPLUS_AUTO (it asks for plain READDIR first and pays for each name later),
 * EXPORT_SUPPORT (nobody exports a view over NFS), POSIX_LOCKS and FLOCK_LOCKS (the kernel keeps
 * the locks of one mount itself), AUTO_INVAL_DATA (nobody else changes the files). ATOMIC_O_TRUNC
 * only with PASSTHROUGH: without that there is no OPEN to carry it.
 */

import {
  FUSE_ABORT_ERROR,
  FUSE_ASYNC_DIO,
  FUSE_ASYNC_READ,
  FUSE_ATOMIC_O_TRUNC,
  FUSE_BIG_WRITES,
  FUSE_CACHE_SYMLINKS,
  FUSE_DO_READDIRPLUS,
  FUSE_DONT_MASK,
  FUSE_HANDLE_KILLPRIV_V2,
  FUSE_HAS_EXPIRE_ONLY,
  FUSE_HAS_RESEND,
  FUSE_INIT_EXT,
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_MAX_PAGES,
  FUSE_NO_OPEN_SUPPORT,
  FUSE_NO_OPENDIR_SUPPORT,
  FUSE_OLDEST_MINOR_VERSION,
  FUSE_PARALLEL_DIROPS,
  FUSE_PASSTHROUGH,
  FUSE_POSIX_ACL,
  FUSE_SETXATTR_EXT,
  IN_HEADER_BYTES,
  MAX_TRANSFER_BYTES,
  MAX_TRANSFER_PAGES,
} from "./constants.js";
import type { InitReply } from "./reply.js";
import type { RequestBuffer } from "./request.js";

/** struct fuse_init_in. */
export interface InitOffer {
  major: number;
  minor: number;
  maxReadahead: number;
  flags: number;
  flags2: number;
}

/** What was agreed, for a session to act on, and for the one that takes over after it. */
export interface Agreement {
  readonly reply: InitReply;
  /** SETXATTR carries the longer structure. */
  readonly hasExtendedSetxattr: boolean;
  /** NOTIFY_INVAL_ENTRY takes FUSE_EXPIRE_ONLY. */
  readonly hasExpireOnly: boolean;
  /** The kernel takes backing files, and asks before each open. */
  readonly hasPassthrough: boolean;
  /** NOTIFY_RESEND works: another session can take over. */
  readonly hasResend: boolean;
}

/**
 * How many file systems may lie between a backing file and its disk, plus one; 0 for no passthrough.
 * With 2 a backing file may itself be on an overlay, but nothing can be stacked on our mount.
 */
export type StackDepth = 0 | 1 | 2;

const WANTED =
  FUSE_ASYNC_READ |
  FUSE_ASYNC_DIO |
  FUSE_BIG_WRITES |
  // With POSIX ACLs a default ACL replaces the umask, and only the file system knows which it is.
  FUSE_DONT_MASK |
  FUSE_POSIX_ACL |
  FUSE_PARALLEL_DIROPS |
  FUSE_DO_READDIRPLUS |
  FUSE_NO_OPEN_SUPPORT |
  FUSE_NO_OPENDIR_SUPPORT |
  // Also spares a GETXATTR of security.capability before each write.
  FUSE_HANDLE_KILLPRIV_V2 |
  FUSE_SETXATTR_EXT |
  FUSE_CACHE_SYMLINKS |
  FUSE_MAX_PAGES |
  // Tells an abort (ECONNABORTED) from an unmount (ENODEV).
  FUSE_ABORT_ERROR |
  FUSE_INIT_EXT;

const WANTED2 = FUSE_HAS_EXPIRE_ONLY | FUSE_HAS_RESEND;

/** Requests that the kernel may queue in the background (read-ahead, asynchronous I/O); its default is 12. */
const MAX_BACKGROUND = 128;
/** Past so many it calls the device congested and stops reading ahead. */
const CONGESTION_THRESHOLD = 96;
/** Read-ahead that we allow, in bytes; the kernel takes the smaller of this and its own 128 KiB until told by `raiseReadAhead`. */
const MAX_READAHEAD = 16 << 20;

/** What came to the protocol after Linux 5.10. */
const RECENT = FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT;
const OLD_KERNEL_MINOR = 32;

/** Decodes INIT: major 0, minor 4, max_readahead 8, flags 12, and since 7.36 flags2 16. */
export function decodeInit(request: RequestBuffer): InitOffer {
  const flags = request.u32(IN_HEADER_BYTES + 12);
  const isExtended = (flags & FUSE_INIT_EXT) !== 0 && request.length >= IN_HEADER_BYTES + 20;
  const offer = {
    major: request.u32(IN_HEADER_BYTES),
    minor: request.u32(IN_HEADER_BYTES + 4),
    maxReadahead: request.u32(IN_HEADER_BYTES + 8),
    flags,
    flags2: isExtended ? request.u32(IN_HEADER_BYTES + 16) : 0,
  };
  return process.env.VARVE_OLD_KERNEL === "1" ? olderOffer(offer) : offer;
}

/** As Linux 5.10 makes it, which lets the tests cover such kernels on any other. */
function olderOffer(offer: InitOffer): InitOffer {
  const minor = Math.min(OLD_KERNEL_MINOR, offer.minor);
  return { ...offer, minor, flags: (offer.flags & ~RECENT) >>> 0, flags2: 0 };
}

/**
 * What we answer to an offer of major version 7, or newer (the kernel then asks again).
 *
 * @param stackDepth other than 0: passthrough is wanted, where the kernel has it
 * @param acl whether POSIX ACLs are to be had
 * @returns undefined for a kernel too old to serve
 */
export function agree(offer: InitOffer, stackDepth: StackDepth, acl = true): Agreement | undefined {
  if (offer.major < 7) return undefined;
  if (offer.major === 7 && offer.minor < FUSE_OLDEST_MINOR_VERSION) return undefined;
  const hasPassthrough = stackDepth > 0 && (offer.flags2 & FUSE_PASSTHROUGH) !== 0;
  const basic = acl ? WANTED : WANTED & ~FUSE_POSIX_ACL;
  const wanted = hasPassthrough ? basic | FUSE_ATOMIC_O_TRUNC : basic;
  const wanted2 = hasPassthrough ? WANTED2 | FUSE_PASSTHROUGH : WANTED2;
  const flags = (offer.flags & wanted) >>> 0;
  const flags2 = (offer.flags2 & wanted2) >>> 0;
  return {
    hasPassthrough,
    hasExtendedSetxattr: (flags & FUSE_SETXATTR_EXT) !== 0,
    hasExpireOnly: (flags2 & FUSE_HAS_EXPIRE_ONLY) !== 0,
    hasResend: (flags2 & FUSE_HAS_RESEND) !== 0,
    reply: {
      minor: Math.min(FUSE_KERNEL_MINOR_VERSION, offer.minor),
      maxReadahead: MAX_READAHEAD,
      flags,
      flags2,
      maxBackground: MAX_BACKGROUND,
      congestionThreshold: CONGESTION_THRESHOLD,
      maxWrite: MAX_TRANSFER_BYTES,
      timeGranularityNs: 1,
      maxPages: MAX_TRANSFER_PAGES,
      maxStackDepth: hasPassthrough ? stackDepth : 0,
    },
  };
}
