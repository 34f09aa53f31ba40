/**
 * Hard links of a view, planned before its entries are walked.
 *
 * A file of several names is one *group*, and a layer carries all visible names of a group or none:
 * a hard link in a layer must lead to a file of the same layer. Names come from three places:
 *
 * - names in the upper of the same file on disk;
 * - lower names of a copied-up file (see WORK_INDEX) that the upper does not have itself;
 * - lower names of a file that also shows in a moved directory, though nobody touched the file.
 *
 * Names of the second and third kind lie in directories that the upper may not have at all. They
 * are kept as *extra* names by the lower directory that shows them, together with the directories on
 * the way to them, so that a walk of the upper can visit them in order.
 */

import { ROOT_INODE } from "../overlay/chain-index.js";
import type { ByteString } from "../system/bytes.js";
import { S_IFDIR, S_IFMT } from "../system/constants.js";
import { STAT_MODE, STAT_SLOTS } from "../system/native.js";
import { findName } from "./layer-scan.js";
import type { ObjectFacts, UpperDirectory, UpperTree } from "./upper-tree.js";

/** One file with several names. */
export class LinkGroup {
  readonly facts: ObjectFacts;
  /** False when the parent image has exactly these names of an equal file. */
  isChanged = false;
  /** Path of the entry that carries the file; later names link to it. */
  firstPath: ByteString | undefined;

  constructor(facts: ObjectFacts) {
    this.facts = facts;
  }
}

/** An extra name leads to a group, or is a directory with extra names below it. */
export type ExtraName = LinkGroup | "directory";

/** How a lower directory shows in the view. */
interface Showing {
  /** Its upper directory, if it has one. */
  readonly upper: UpperDirectory | undefined;
  /** True when it shows at its own path, and a layer continues it there. */
  readonly isInPlace: boolean;
}

/** Tells whether facts equal those of a lower inode, content included. */
export type EqualsLower = (facts: ObjectFacts, inode: number) => boolean;

/** See the file comment. */
export class LinkPlan {
  readonly #tree: UpperTree;
  readonly #equalsLower: EqualsLower;
  readonly #belowOf: (dir: UpperDirectory) => number;
  readonly #byDisk = new Map<number, LinkGroup>();
  readonly #byLower = new Map<number, LinkGroup>();
  readonly #extras = new Map<number, Map<ByteString, ExtraName>>();
  readonly #showings = new Map<number, Showing | undefined>();

  /** @param belowOf the lower directory that a layer's entries of an upper directory add to, or 0 */
  constructor(tree: UpperTree, equalsLower: EqualsLower, belowOf: (dir: UpperDirectory) => number) {
    this.#tree = tree;
    this.#equalsLower = equalsLower;
    this.#belowOf = belowOf;
    const originals = new Map<LinkGroup, number>();
    this.#groupUpperNames(tree.root, originals);
    for (const [group, original] of originals)
      if (!group.isChanged)
        group.isChanged = !equalsLower(group.facts, original) || this.#losesNames(original, group);
    for (const inode of tree.copied.keys()) this.#addCopied(inode, originals);
    if (tree.byContinued.size > 0) this.#addMoved(tree.root);
  }

  /** The group of an upper file, if it has several names on disk. */
  groupOfUpper(dir: UpperDirectory, position: number): LinkGroup | undefined {
    const diskInode = this.#tree.linkedDiskInode(dir, position);
    return diskInode === 0 ? undefined : this.#byDisk.get(diskInode);
  }

  /** The group of a lower file, if it is in one. */
  groupOfLower(inode: number): LinkGroup | undefined {
    return this.#byLower.get(inode);
  }

  /** Extra names in the place where a lower directory shows. */
  extraNames(lowerDir: number): ReadonlyMap<ByteString, ExtraName> | undefined {
    return this.#extras.get(lowerDir);
  }

  /**
   * True when an upper file, though equal to a lower one, is not one file any more with all the
   * lower one's names that show. Kernel overlayfs breaks hard links so when it copies up.
   */
  losesNames(dir: UpperDirectory, position: number, inode: number): boolean {
    return this.#showsElsewhere(inode, (at, other) => at === dir && other === position);
  }

  #losesNames(inode: number, group: LinkGroup): boolean {
    const isOwn = (dir: UpperDirectory, position: number) =>
      this.groupOfUpper(dir, position) === group;
    return this.#showsElsewhere(inode, isOwn);
  }

  #showsElsewhere(
    inode: number,
    isOwn: (dir: UpperDirectory, position: number) => boolean,
  ): boolean {
    const tree = this.#tree;
    if (tree.index.nlink(inode) < 2) return false;
    return tree.index.names(inode).some(({ parent, name }) => {
      const showing = this.#showing(parent);
      if (showing === undefined) return false;
      const position = showing.upper === undefined ? -1 : findName(showing.upper.scan, name);
      // Lower names of a copied-up file are the upper file's own.
      if (position < 0) return !tree.copied.has(inode);
      return !tree.isWhiteout(showing.upper!, position) && !isOwn(showing.upper!, position);
    });
  }

  #groupUpperNames(root: UpperDirectory, originals: Map<LinkGroup, number>): void {
    const todo = [root];
    for (let dir = todo.pop(); dir !== undefined; dir = todo.pop()) {
      todo.push(...dir.children.values());
      for (const position of dir.scan.order) this.#groupUpperName(dir, position, originals);
    }
  }

  #groupUpperName(dir: UpperDirectory, position: number, originals: Map<LinkGroup, number>): void {
    const tree = this.#tree;
    if ((dir.scan.stats[position * STAT_SLOTS + STAT_MODE]! & S_IFMT) === S_IFDIR) return;
    const diskInode = tree.linkedDiskInode(dir, position);
    if (diskInode === 0 || tree.isWhiteout(dir, position)) return;
    let group = this.#byDisk.get(diskInode);
    const original = tree.lookup(this.#belowOf(dir), dir.scan.names[position]!);
    if (group === undefined) {
      group = new LinkGroup(tree.fileFacts(dir, position));
      this.#byDisk.set(diskInode, group);
      originals.set(group, original);
    }
    if (original === 0 || originals.get(group) !== original) group.isChanged = true;
  }

  /** The lower names of a copied-up file that still show. */
  #addCopied(inode: number, originals: Map<LinkGroup, number>): void {
    const tree = this.#tree;
    let group = this.#byDisk.get(tree.copiedDiskInode(inode));
    if (group === undefined) {
      group = new LinkGroup(tree.copiedFacts(inode));
      group.isChanged = !this.#equalsLower(group.facts, inode);
    } else if (originals.get(group) !== inode) {
      group.isChanged = true;
    }
    this.#byLower.set(inode, group);
    this.#addLowerNames(inode, group);
  }

  /** Files of several names that show in moved directories: their other names must come along. */
  #addMoved(root: UpperDirectory): void {
    const uppers = [root];
    for (let dir = uppers.pop(); dir !== undefined; dir = uppers.pop()) {
      uppers.push(...dir.children.values());
      if (dir.continued === 0 || dir.continued === this.#belowOf(dir)) continue;
      const lowers = [dir.continued];
      for (let lower = lowers.pop(); lower !== undefined; lower = lowers.pop())
        this.#addMovedFiles(lower, lower === dir.continued ? dir : undefined, lowers);
    }
  }

  #addMovedFiles(lower: number, upper: UpperDirectory | undefined, lowers: number[]): void {
    const { index } = this.#tree;
    for (let entry = index.firstEntry(lower); entry < index.endEntry(lower); entry += 1) {
      if (upper !== undefined && this.#tree.hasEntry(upper, index.entryName(entry))) continue;
      const inode = index.entryInode(entry);
      if ((index.mode(inode) & S_IFMT) === S_IFDIR) lowers.push(inode);
      else if (index.nlink(inode) > 1) this.#addMovedFile(inode);
    }
  }

  #addMovedFile(inode: number): void {
    const known = this.#byLower.get(inode);
    if (known !== undefined) {
      known.isChanged = true;
      return;
    }
    const group = new LinkGroup(this.#tree.lowerFacts(inode));
    group.isChanged = true;
    this.#byLower.set(inode, group);
    this.#addLowerNames(inode, group);
  }

  #addLowerNames(inode: number, group: LinkGroup): void {
    for (const { parent, name } of this.#tree.index.names(inode)) {
      const showing = this.#showing(parent);
      if (showing === undefined) continue;
      if (showing.upper !== undefined && this.#tree.hasEntry(showing.upper, name)) continue;
      if (!showing.isInPlace) group.isChanged = true;
      this.#addExtra(parent, name, group);
    }
  }

  #addExtra(dir: number, name: ByteString, extra: ExtraName): void {
    let names = this.#extras.get(dir);
    const isNew = names === undefined;
    if (names === undefined) {
      names = new Map();
      this.#extras.set(dir, names);
    }
    names.set(name, extra);
    // The way from an upper directory down to here.
    if (!isNew || dir === ROOT_INODE || this.#showing(dir)?.upper !== undefined) return;
    this.#addExtra(this.#tree.index.parent(dir), this.#tree.index.name(dir), "directory");
  }

  /** How a lower directory shows in the view; undefined when it is hidden. */
  #showing(dir: number): Showing | undefined {
    if (this.#showings.has(dir)) return this.#showings.get(dir);
    const showing = this.#findShowing(dir);
    this.#showings.set(dir, showing);
    return showing;
  }

  #findShowing(dir: number): Showing | undefined {
    const upper = this.#tree.byContinued.get(dir);
    if (upper !== undefined) return { upper, isInPlace: this.#belowOf(upper) === dir };
    if (dir === ROOT_INODE) return undefined;
    const parent = this.#showing(this.#tree.index.parent(dir));
    if (parent === undefined) return undefined;
    const isHidden =
      parent.upper !== undefined && this.#tree.hasEntry(parent.upper, this.#tree.index.name(dir));
    return isHidden ? undefined : { upper: undefined, isInPlace: parent.isInPlace };
  }
}
