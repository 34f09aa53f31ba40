/**
 * Gives a freshly made file system object the owner, mode, attributes and times that its entry
 * names. The order matters: chown clears set-id bits and security.capability, so it comes first;
 * everything touches times, so they come last.
 */

import { readFileSync } from "node:fs";
import { asWritable } from "../overlay/as-writable.js";
import { isOverlayAttribute } from "../overlay/format.js";
import { sys } from "../system/addon.js";
import { type ByteString, display } from "../system/bytes.js";
import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW } from "../system/constants.js";
import { EINVAL, ENOTSUP, EPERM, must } from "../system/errno.js";
import { encodeOwner, keepsOwnersBeside, OWNER_ATTRIBUTE } from "./rootless-owner.js";
import type { TarEntry } from "./tar-entry.js";

/** Permission bits that creation honours; set-id and sticky ones need chmod. */
const PERMISSION_BITS = 0o777;

/** Applies metadata to the objects of one layer. */
export class EntryMetadata {
  readonly #privileged: boolean;
  readonly #warn: (message: string) => void;
  readonly #uid = process.geteuid?.() ?? 0;
  readonly #gid = process.getegid?.() ?? 0;
  readonly #umask = readUmask();
  readonly #keepsOwners: boolean;

  /**
   * @param privileged false: attributes that the kernel refuses to a user are left out, and owners kept
   *   beside the files
   * @param warn told what had to be left out
   */
  constructor(privileged: boolean, warn: (message: string) => void) {
    this.#privileged = privileged;
    this.#keepsOwners = keepsOwnersBeside(privileged);
    this.#warn = warn;
  }

  /** The mode that an object has when it is created with `mode`. */
  createdMode(mode: number): number {
    return mode & PERMISSION_BITS & ~this.#umask;
  }

  /**
   * Applies all but the mode's creation: owner, mode if it differs from `currentMode`, attributes,
   * times. `name` is one component in directory `dirfd`, or "" for the descriptor itself.
   *
   * @param where names the entry in errors
   * @throws SyscallError
   */
  apply(
    dirfd: number,
    name: ByteString,
    entry: TarEntry,
    currentMode: number,
    where: () => string,
  ): void {
    const flags = name === "" ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
    this.#chown(dirfd, name, entry, flags, where);
    if (entry.type !== "symlink" && entry.mode !== currentMode) {
      check(sys.fchmodat(dirfd, name, entry.mode), "fchmodat", where);
    }
    if (entry.xattrs.length > 0) this.#setXattrs(dirfd, name, entry, where);
    const { mtimeSec: sec, mtimeNsec: nsec } = entry;
    // Layers carry no access time: the same time twice keeps the tree reproducible.
    check(sys.utimensat(dirfd, name, sec, nsec, sec, nsec, flags), "utimensat", where);
  }

  /** Makes an existing directory as one that this process has just created, apart from its mode. */
  takeOwnership(fd: number, subject: string): void {
    const result = sys.fchownat(fd, "" as ByteString, this.#uid, this.#gid, AT_EMPTY_PATH);
    if (this.#privileged) must(result, "fchown", subject);
  }

  #chown(
    dirfd: number,
    name: ByteString,
    entry: TarEntry,
    flags: number,
    where: () => string,
  ): void {
    if (this.#keepsOwners) {
      this.#noteOwner(dirfd, name, entry, where);
      return;
    }
    if (entry.uid === this.#uid && entry.gid === this.#gid) return;
    const result = sys.fchownat(dirfd, name, entry.uid, entry.gid, flags);
    // EINVAL: the ID has no mapping in this user namespace.
    if (!this.#privileged && (result === -EPERM || result === -EINVAL)) return;
    check(result, "fchownat", where);
  }

  /** Symlinks, devices and fifos have no attributes of users: for them it is lost. */
  #noteOwner(dirfd: number, name: ByteString, entry: TarEntry, where: () => string): void {
    const isRoots = entry.uid === 0 && entry.gid === 0;
    const result = asWritable(dirfd, name, entry.mode, () =>
      isRoots
        ? sys.removexattrat(dirfd, name, OWNER_ATTRIBUTE)
        : sys.setxattrat(dirfd, name, OWNER_ATTRIBUTE, encodeOwner(entry), 0),
    );
    if (result >= 0 || isRoots) return;
    this.#warn(`${where()}: owner ${entry.uid}:${entry.gid} left out (${sys.errnoName(-result)})`);
  }

  #setXattrs(dirfd: number, name: ByteString, entry: TarEntry, where: () => string): void {
    for (const { name: attribute, value } of entry.xattrs) {
      // From outside they could open or redirect what the overlay hides.
      if (isOverlayAttribute(attribute)) continue;
      const result = sys.setxattrat(dirfd, name, attribute, value, 0);
      if (result >= 0) continue;
      if (this.#mayLeaveOut(entry, attribute, result)) {
        this.#warn(
          `${where()}: attribute ${display(attribute)} left out (${sys.errnoName(-result)})`,
        );
        continue;
      }
      check(result, `setxattr ${display(attribute)}`, where);
    }
  }

  #mayLeaveOut(entry: TarEntry, attribute: ByteString, result: number): boolean {
    if (result === -ENOTSUP) return true;
    if (result !== -EPERM) return false;
    // user.* exists on files and directories only, for root too.
    const takesUser = entry.type === "file" || entry.type === "directory";
    return !this.#privileged || (attribute.startsWith("user.") && !takesUser);
  }
}

/** As `must`, with the subject made only when it is needed. */
function check(result: number, syscall: string, where: () => string): void {
  if (result < 0) must(result, syscall, where());
}

/** The umask, without the moment of umask(2) in which other threads would run with another one. */
function readUmask(): number {
  const match = /^Umask:\s*([0-7]+)/m.exec(readFileSync("/proc/self/status", "latin1"));
  return match === null ? 0o777 : Number.parseInt(match[1] as string, 8);
}
