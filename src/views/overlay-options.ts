/**
 * The options of `varve overlay`, in the form that fuse-overlayfs has given them: `-o` lists with
 * commas, a backslash before a comma or colon that belongs to a path.
 *
 * @see fuse-overlayfs(1), mount(8) for the helper's command line
 */

import type { IoMode } from "../metadata/view-table.js";
import {
  MS_DIRSYNC,
  MS_NOATIME,
  MS_NODEV,
  MS_NODIRATIME,
  MS_NOEXEC,
  MS_NOSUID,
  MS_SYNCHRONOUS,
} from "../system/constants.js";
import { InvalidArgumentError, UnsupportedError } from "../system/errors.js";
import { parseIoMode } from "./io-mode.js";

/** A run of IDs: `size` from `disk` on are shown as those from `shown` on. */
export interface IdRange {
  readonly disk: number;
  readonly shown: number;
  readonly size: number;
}

/** How owners on disk and owners in the mount belong together. */
export interface IdMapping {
  /** Empty: as they are. */
  readonly ranges: readonly IdRange[];
  /** Whom everything is shown to belong to, whatever the disk says. */
  readonly squashTo?: number;
}

/** What the command line asks for. Paths are as given. */
export interface OverlayMountOptions {
  readonly target: string;
  /** First column of /proc/mounts. */
  readonly source: string;
  /** Topmost first, as in the option. */
  readonly lowerDirs: readonly string[];
  readonly upperDir?: string;
  readonly workDir?: string;
  readonly readOnly: boolean;
  /** MS_* beside MS_RDONLY. */
  readonly mountFlags: number;
  /** Options for the kernel as they are (SELinux contexts). */
  readonly kernelOptions: readonly string[];
  readonly uids: IdMapping;
  readonly gids: IdMapping;
  readonly staticLinkCount: boolean;
  readonly acl: boolean;
  /** False: fsync does nothing. */
  readonly fsync: boolean;
  readonly metacopy: boolean;
  readonly redirectDirectories: boolean;
  readonly io: IoMode;
  readonly debug: boolean;
}

const FLAGS: Readonly<Record<string, readonly [set: number, clear: number]>> = {
  nosuid: [MS_NOSUID, 0],
  suid: [0, MS_NOSUID],
  nodev: [MS_NODEV, 0],
  dev: [0, MS_NODEV],
  noexec: [MS_NOEXEC, 0],
  exec: [0, MS_NOEXEC],
  noatime: [MS_NOATIME, 0],
  atime: [0, MS_NOATIME],
  nodiratime: [MS_NODIRATIME, 0],
  diratime: [0, MS_NODIRATIME],
  sync: [MS_SYNCHRONOUS, 0],
  async: [0, MS_SYNCHRONOUS],
  dirsync: [MS_DIRSYNC, 0],
};

/**
 * Accepted, because callers of fuse-overlayfs give them, and without effect: either varve always does
 * so, or they steer something that varve has no counterpart of.
 */
const WITHOUT_EFFECT = new Set([
  "allow_other",
  "allow_root",
  "auto_unmount",
  "clone_fd",
  "default_permissions",
  "defaults",
  "fast_ino",
  "fast_ino_check",
  "ino32_t",
  "kernel_cache",
  "lazytime",
  "max_background",
  "max_idle_threads",
  "max_write",
  "nonempty",
  "relatime",
  "rw",
  "splice_move",
  "splice_read",
  "splice_write",
  "threaded",
  "timeout",
  "writeback",
  "xino",
]);

const CONTEXTS = new Set(["context", "fscontext", "defcontext", "rootcontext"]);
const UNSUPPORTED: Readonly<Record<string, string>> = {
  plugins: "there are no plugins; give plain directories",
  xattr_permissions:
    "owners and modes are those of the disk; leave the option out (force_mask in storage.conf)",
  noxattrs: "marks of the overlay are extended attributes",
  nfs_filehandles: "the mount cannot be exported over NFS",
};

/** Reads the -o lists of one command line. */
class OptionReader {
  readonly paths: { lower?: string[]; upper?: string; work?: string } = {};
  readonly kernel: string[] = [];
  readonly mapping: { uid: IdRange[]; gid: IdRange[] } = { uid: [], gid: [] };
  readonly squash: { uid?: number; gid?: number; root: boolean } = { root: false };
  readonly on = { ro: false, staticLinks: false, acl: true, fsync: true, debug: false };
  readonly format = { metacopy: false, redirect: true };
  source: string | undefined;
  io: IoMode = "auto";
  flags = 0;

  list(text: string): void {
    for (const part of splitEscaped(text, ",")) if (part !== "") this.#option(part);
  }

  #option(text: string): void {
    const equals = text.indexOf("=");
    const name = equals < 0 ? text : text.slice(0, equals);
    const value = equals < 0 ? undefined : text.slice(equals + 1);
    const flag = value === undefined ? FLAGS[name] : undefined;
    if (flag !== undefined) {
      this.flags = (this.flags | flag[0]) & ~flag[1];
    } else if (!this.#plain(name, value) && !this.#path(name, value) && !this.#owner(name, value)) {
      const why = UNSUPPORTED[name];
      if (why !== undefined) throw new UnsupportedError(`overlay: option ${name}: ${why}`);
      if (CONTEXTS.has(name)) this.kernel.push(text);
      else if (!WITHOUT_EFFECT.has(name) && !name.startsWith("x-"))
        throw new InvalidArgumentError(`overlay: unknown option ${text}`);
    }
  }

  #plain(name: string, value: string | undefined): boolean {
    const { on, format } = this;
    if (name === "ro") on.ro = true;
    else if (name === "static_nlink") on.staticLinks = true;
    else if (name === "noacl") on.acl = false;
    else if (name === "volatile") on.fsync = false;
    else if (name === "debug") on.debug = true;
    else if ((name === "fsync" || name === "sync") && value !== undefined) on.fsync = value !== "0";
    else if (name === "metacopy") format.metacopy = isOn(name, value);
    else if (name === "redirect_dir") format.redirect = isOn(name, value);
    else if (name === "io") this.io = parseIoMode(needed(name, value))!;
    else return false;
    return true;
  }

  #path(name: string, value: string | undefined): boolean {
    if (name === "lowerdir")
      this.paths.lower = splitEscaped(needed(name, value), ":").map(withoutEscapes);
    else if (name === "upperdir") this.paths.upper = withoutEscapes(needed(name, value));
    else if (name === "workdir") this.paths.work = withoutEscapes(needed(name, value));
    else if (name === "fsname") this.source = withoutEscapes(needed(name, value));
    else return false;
    return true;
  }

  #owner(name: string, value: string | undefined): boolean {
    if (name === "uidmapping") this.mapping.uid = readRanges(name, needed(name, value));
    else if (name === "gidmapping") this.mapping.gid = readRanges(name, needed(name, value));
    else if (name === "squash_to_root") this.squash.root = true;
    else if (name === "squash_to_uid") this.squash.uid = readId(name, needed(name, value));
    else if (name === "squash_to_gid") this.squash.gid = readId(name, needed(name, value));
    else return false;
    return true;
  }

  /** The owners' mapping of one kind. */
  ids(kind: "uid" | "gid"): IdMapping {
    const squashTo = this.squash[kind] ?? (this.squash.root ? 0 : undefined);
    const ranges = this.mapping[kind];
    return squashTo === undefined ? { ranges } : { ranges, squashTo };
  }
}

/**
 * Reads a command line: `[-f] [-d] [-o LIST]… [SOURCE] TARGET`. The form with a source is mount(8)'s.
 *
 * @throws InvalidArgumentError it is malformed, or names no lower directory
 * @throws UnsupportedError an option asks for what varve cannot do
 */
export function parseOverlayArguments(argv: readonly string[]): OverlayMountOptions {
  const reader = new OptionReader();
  const operands: string[] = [];
  let onlyOperands = false;
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at]!;
    if (onlyOperands) operands.push(argument);
    else if (argument === "--") onlyOperands = true;
    else if (argument === "-o") reader.list(needed("-o", argv[++at]));
    else if (argument === "-t" || argument === "-N") at++;
    else if (argument.startsWith("-o")) reader.list(argument.slice(2));
    else if (argument === "-d" || argument === "--debug") reader.on.debug = true;
    // The launcher sees to -f; the rest are mount(8)'s -s (sloppy), -n (no mtab), -v (verbose).
    else if (/^-[fsnv]+$/.test(argument)) continue;
    else if (argument.startsWith("-"))
      throw new InvalidArgumentError(`overlay: unknown argument ${argument}`);
    else operands.push(argument);
  }
  const target = operands.at(-1);
  if (target === undefined || operands.length > 2)
    throw new InvalidArgumentError("overlay: give one directory to mount on");
  return finish(reader, target, operands.length === 2 ? operands[0] : undefined);
}

function finish(reader: OptionReader, target: string, source: string | undefined) {
  const { lower, upper, work } = reader.paths;
  const lowerDirs = (lower ?? []).filter((path) => path !== "");
  if (lowerDirs.length === 0)
    throw new InvalidArgumentError("overlay: no lowerdir; give one with -o lowerdir=DIR[:DIR…]");
  const plugin = lowerDirs.find((path) => /^\/\/[^/]*\/\//.test(path));
  if (plugin !== undefined)
    throw new UnsupportedError(`overlay: lowerdir ${plugin}: ${UNSUPPORTED.plugins}`);
  if (upper !== undefined && work === undefined)
    throw new InvalidArgumentError(
      `overlay: no workdir for upperdir ${upper}; give one on the same file system with -o workdir=DIR`,
    );
  return {
    target,
    source: reader.source ?? source ?? "varve",
    lowerDirs,
    ...(upper === undefined || work === undefined ? {} : { upperDir: upper, workDir: work }),
    readOnly: reader.on.ro || upper === undefined,
    mountFlags: reader.flags,
    kernelOptions: reader.kernel,
    uids: reader.ids("uid"),
    gids: reader.ids("gid"),
    staticLinkCount: reader.on.staticLinks,
    acl: reader.on.acl,
    fsync: reader.on.fsync,
    metacopy: reader.format.metacopy,
    redirectDirectories: reader.format.redirect,
    io: reader.io,
    debug: reader.on.debug,
  };
}

function needed(name: string, value: string | undefined): string {
  if (value === undefined || value === "")
    throw new InvalidArgumentError(`overlay: option ${name} needs a value`);
  return value;
}

function isOn(name: string, value: string | undefined): boolean {
  if (value === undefined || value === "on" || value === "1") return true;
  if (value === "off" || value === "0" || value === "follow" || value === "nofollow") return false;
  throw new InvalidArgumentError(`overlay: option ${name}: on or off, not ${value}`);
}

function readId(name: string, text: string): number {
  const id = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(id <= 0xffff_fffe))
    throw new InvalidArgumentError(`overlay: option ${name}: ${text} is no user or group number`);
  return id;
}

/** `DISK:SHOWN:SIZE`, repeated behind another colon. */
function readRanges(name: string, text: string): IdRange[] {
  const numbers = text.split(/[:,]/).map((part) => readId(name, part));
  if (numbers.length % 3 !== 0)
    throw new InvalidArgumentError(`overlay: option ${name}: ${text} is not DISK:SHOWN:SIZE[:…]`);
  const ranges: IdRange[] = [];
  for (let at = 0; at < numbers.length; at += 3) {
    ranges.push({ disk: numbers[at]!, shown: numbers[at + 1]!, size: numbers[at + 2]! });
  }
  return ranges;
}

/** Splits at a separator that no backslash precedes; escapes stay. */
function splitEscaped(text: string, separator: string): string[] {
  const parts: string[] = [];
  let part = "";
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!;
    if (character === "\\" && at + 1 < text.length) {
      part += character + text[++at]!;
    } else if (character === separator) {
      parts.push(part);
      part = "";
    } else {
      part += character;
    }
  }
  parts.push(part);
  return parts;
}

function withoutEscapes(text: string): string {
  return text.replace(/\\(.)/g, "$1");
}
