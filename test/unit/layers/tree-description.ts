/** Describes a tree, from a chain index or from disk, as one comparable line per path. */

import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync } from "node:fs";
import {
  type ChainIndex,
  type InodeAttributes,
  ROOT_INODE,
} from "../../../src/overlay/chain-index.js";
import { isOverlayAttribute } from "../../../src/overlay/format.js";
import { sys } from "../../../src/system/addon.js";
import { type ByteString, joinBytes, toBuffer } from "../../../src/system/bytes.js";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../../../src/system/constants.js";
import { must } from "../../../src/system/errno.js";
import {
  type DirectoryScan,
  STAT_GID,
  STAT_INO,
  STAT_MODE,
  STAT_MTIME_NSEC,
  STAT_MTIME_SEC,
  STAT_NLINK,
  STAT_RDEV,
  STAT_SIZE,
  STAT_SLOTS,
  STAT_UID,
} from "../../../src/system/native.js";

export interface DescribeOptions {
  /** Include modification times of directories (they differ where a tool made the parents). */
  readonly directoryTimes?: boolean;
  readonly times?: boolean;
  /** Include a digest of file contents. */
  readonly contents?: boolean;
  readonly linkCounts?: boolean;
}

interface Facts {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly size: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly nlink: number;
  readonly target: string;
  readonly xattrs: readonly { name: string; value: Buffer }[];
  readonly content: () => Buffer;
}

function line(facts: Facts, options: DescribeOptions, group: string): string {
  const type = facts.mode & S_IFMT;
  const words = [facts.mode.toString(8), `${facts.uid}:${facts.gid}`, `dev=${facts.rdev}`];
  if (type !== S_IFDIR) words.push(`size=${facts.size}`);
  if (options.times !== false && (type !== S_IFDIR || options.directoryTimes !== false))
    words.push(`mtime=${facts.mtimeSec}.${facts.mtimeNsec}`);
  if (type === S_IFLNK) words.push(`-> ${facts.target}`);
  if (options.linkCounts === true) words.push(`nlink=${facts.nlink}`);
  if (options.contents === true && type === S_IFREG)
    words.push(createHash("sha1").update(facts.content()).digest("hex"));
  if (group !== "") words.push(`= ${group}`);
  for (const { name, value } of [...facts.xattrs].sort((a, b) => (a.name < b.name ? -1 : 1)))
    words.push(`${name}=${value.toString("latin1")}`);
  return words.join(" ");
}

/** The merged tree that an index says there is. */
export function describeIndex(
  index: ChainIndex,
  layerDirs: readonly string[] = [],
  options: DescribeOptions = {},
): Map<string, string> {
  const lines = new Map<string, string>();
  const groups = new Map<number, string>();
  const attributes = {} as InodeAttributes;
  const describe = (inode: number, path: string) => {
    index.attributes(inode, attributes);
    const isLinked = (attributes.mode & S_IFMT) !== S_IFDIR && index.names(inode).length > 1;
    const group = isLinked ? (groups.get(inode) ?? path) : "";
    groups.set(inode, group);
    const facts: Facts = {
      ...attributes,
      target: index.symlinkTarget(inode),
      xattrs: index.xattrs(inode),
      content: () => {
        const file = joinBytes(
          Buffer.from(layerDirs[index.layer(inode)]!).toString("latin1") as ByteString,
          index.contentPath(inode),
        );
        return readFileSync(toBuffer(file));
      },
    };
    lines.set(path, line(facts, options, group));
  };
  const walk = (dir: number, path: ByteString) => {
    for (let entry = index.firstEntry(dir); entry < index.endEntry(dir); entry += 1) {
      const inode = index.entryInode(entry);
      const childPath = joinBytes(path, index.entryName(entry));
      describe(inode, childPath);
      if ((index.mode(inode) & S_IFMT) === S_IFDIR) walk(inode, childPath);
    }
  };
  describe(ROOT_INODE, "");
  walk(ROOT_INODE, "" as ByteString);
  return lines;
}

/** The tree below a directory on disk (or a mounted view of it). */
export function describeDisk(root: string, options: DescribeOptions = {}): Map<string, string> {
  const lines = new Map<string, string>();
  const found: { path: string; facts: Facts; inode: number }[] = [];
  const factsAt = (scan: DirectoryScan, position: number, file: Buffer): Facts => {
    const stat = (slot: number) => scan.stats[position * STAT_SLOTS + slot]!;
    return {
      mode: stat(STAT_MODE),
      uid: stat(STAT_UID),
      gid: stat(STAT_GID),
      rdev: stat(STAT_RDEV),
      size: stat(STAT_SIZE),
      mtimeSec: stat(STAT_MTIME_SEC),
      mtimeNsec: stat(STAT_MTIME_NSEC),
      nlink: stat(STAT_NLINK),
      target: scan.targets[position] ?? "",
      xattrs: (scan.xattrs[position] ?? [])
        .filter(([name]) => !isOverlayAttribute(name))
        .map(([name, value]) => ({ name, value })),
      content: () => readFileSync(file),
    };
  };
  const walk = (dir: Buffer, path: ByteString) => {
    const fd = openSync(dir, "r");
    const scan = must<DirectoryScan>(sys.scanDirectory(fd), "scan", dir.toString());
    closeSync(fd);
    const order = scan.names
      .map((_, at) => at)
      .sort((a, b) => (scan.names[a]! < scan.names[b]! ? -1 : 1));
    for (const position of order) {
      const name = scan.names[position]!;
      const childPath = joinBytes(path, name);
      const child = Buffer.concat([dir, Buffer.from("/"), toBuffer(name)]);
      const facts = factsAt(scan, position, child);
      found.push({ path: childPath, facts, inode: scan.stats[position * STAT_SLOTS + STAT_INO]! });
      if ((facts.mode & S_IFMT) === S_IFDIR) walk(child, childPath);
    }
  };
  walk(Buffer.from(root), "" as ByteString);
  const names = new Map<number, string[]>();
  for (const { path, facts, inode } of found)
    if ((facts.mode & S_IFMT) !== S_IFDIR) names.set(inode, [...(names.get(inode) ?? []), path]);
  for (const { path, facts, inode } of found) {
    const group = names.get(inode) ?? [];
    lines.set(path, line(facts, options, group.length > 1 ? group[0]! : ""));
  }
  const rootStats = new Float64Array(STAT_SLOTS);
  must(
    sys.statx(-100, Buffer.from(root).toString("latin1") as ByteString, 0, rootStats),
    "statx",
    root,
  );
  const rootFd = openSync(root, "r");
  const list = must<Buffer>(sys.listxattrat(rootFd, "" as ByteString), "listxattr", root);
  const rootXattrs = (list.toString("latin1").split("\0").slice(0, -1) as ByteString[])
    .filter((name) => !isOverlayAttribute(name))
    .map(
      (name) =>
        [name, sys.getxattrat(rootFd, "" as ByteString, name) as Buffer] as [ByteString, Buffer],
    );
  closeSync(rootFd);
  const scan: DirectoryScan = { names: [], stats: rootStats, targets: [], xattrs: [rootXattrs] };
  lines.set("", line(factsAt(scan, 0, Buffer.from(root)), options, ""));
  return lines;
}
