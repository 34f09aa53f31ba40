/**
 * Walks what a view changed: the upper, and of the image only what the upper moved or linked.
 *
 * The walk compares the view with the parent image path by path and yields what a reader of a
 * layer must be told, parents before children, siblings in byte order. A directory that did not
 * change is yielded only when something below it is.
 */

import { type ByteString, joinBytes } from "../system/bytes.js";
import { S_IFDIR, S_IFMT, S_IFREG } from "../system/constants.js";
import { ContentReader } from "./content-reader.js";
import { type ExtraName, LinkGroup, LinkPlan } from "./link-plan.js";
import {
  type DiffOptions,
  type ObjectFacts,
  type UpperDirectory,
  UpperTree,
} from "./upper-tree.js";

/** One difference between a view and its image. */
export interface ViewChange {
  /** Added, changed or deleted, by path. */
  readonly kind: "A" | "C" | "D";
  /** Without a leading slash; "" is the root. */
  readonly path: ByteString;
  /** Undefined for "D". */
  readonly facts?: ObjectFacts;
  /** Path, yielded before, of the same file. */
  readonly linkTo?: ByteString;
  /** A directory that hides all that the image has in it. */
  readonly isOpaque?: boolean;
}

/**
 * How a directory that does not continue what the image has at its path is told: "opaque" hides all
 * and names everything in it as added; "compare" names the differences.
 */
export type ResetStyle = "opaque" | "compare";

/** A name in a directory of the view. */
interface Child {
  readonly name: ByteString;
  /** Position in the upper directory's scan. */
  readonly position?: number;
  readonly lower?: number;
  readonly extra?: ExtraName;
}

interface Frame {
  readonly path: ByteString;
  readonly upper: UpperDirectory | undefined;
  /** The lower directory that shows through, or 0. */
  readonly continued: number;
  /** The lower directory that is compared with, or 0. */
  readonly below: number;
  readonly children: readonly Child[];
  next: number;
  /** The directory itself, until it is yielded. */
  pending: ViewChange | undefined;
}

/** A view opened for walking; close it after use. Content can be read until then. */
export class ViewWalk {
  readonly content: ContentReader;
  readonly #tree: UpperTree;
  readonly #links: LinkPlan;
  readonly #style: ResetStyle;
  readonly #frames: Frame[] = [];

  /** @throws SyscallError the upper, the work directory or a layer cannot be read */
  constructor(options: DiffOptions, style: ResetStyle) {
    this.#style = style;
    this.content = new ContentReader(options);
    try {
      this.#tree = new UpperTree(options);
    } catch (error) {
      this.content.close();
      throw error;
    }
    this.#links = new LinkPlan(
      this.#tree,
      (facts, inode) => this.#equalsLower(facts, inode),
      (dir) => this.#belowOf(dir),
    );
  }

  close(): void {
    this.#tree.close();
    this.content.close();
  }

  #belowOf(dir: UpperDirectory): number {
    return this.#style === "opaque" && dir.isReset ? 0 : dir.below;
  }

  /** The changes. To be called once. */
  *changes(): Generator<ViewChange, void, undefined> {
    const { root } = this.#tree;
    const isOpaque = this.#isOpaque(root.continued, root.below);
    const kind = root.below === 0 ? "A" : "C";
    const change: ViewChange = { kind, path: root.path, facts: root.facts, isOpaque };
    // Any change in the root directory moves its mtime; that alone is not worth an entry, but it
    // comes along, as other directories do, when something in the root has changed.
    const before = root.below === 0 ? undefined : this.#tree.lowerFacts(root.below);
    const isTouched =
      before === undefined ||
      isOpaque ||
      !hasEqualMetadata(root.facts, { ...before, ...mtimeOf(root.facts) });
    const isLater = !isTouched && before !== undefined && !hasEqualMetadata(root.facts, before);
    const pending = isLater ? change : undefined;
    this.#push(root.path, root, root.continued, this.#belowOf(root), pending);
    if (isTouched) yield change;
    for (let frame = this.#frames.at(-1); frame !== undefined; frame = this.#frames.at(-1)) {
      const child = frame.children[frame.next];
      frame.next += 1;
      if (child === undefined) this.#frames.pop();
      else yield* this.#visit(frame, child);
    }
  }

  #isOpaque(continued: number, below: number): boolean {
    if (this.#style !== "opaque" || below === 0 || continued === below) return false;
    const { index } = this.#tree;
    return index.firstEntry(below) < index.endEntry(below);
  }

  #push(
    path: ByteString,
    upper: UpperDirectory | undefined,
    continued: number,
    below: number,
    pending: ViewChange | undefined,
  ): void {
    const children = this.#children(upper, continued, below);
    this.#frames.push({ path, upper, continued, below, children, next: 0, pending });
  }

  /** The names to visit: the upper's; all that show through when the place is new; extra names. */
  #children(upper: UpperDirectory | undefined, continued: number, below: number): Child[] {
    const children: Child[] = [];
    if (upper !== undefined)
      for (const position of upper.scan.order)
        children.push({ name: upper.scan.names[position]!, position });
    const own = children.length;
    const extras = continued === 0 ? undefined : this.#links.extraNames(continued);
    if (continued !== below) {
      const shown = this.#addShown(children, upper, continued);
      if (below !== 0) this.#addVanished(children, shown, below);
    } else if (extras !== undefined) {
      for (const [name, extra] of extras) children.push({ name, extra });
    }
    if (children.length > own) children.sort((a, b) => (a.name < b.name ? -1 : 1));
    return children;
  }

  #addShown(
    children: Child[],
    upper: UpperDirectory | undefined,
    continued: number,
  ): ReadonlySet<ByteString> {
    const { index } = this.#tree;
    const taken = new Set(children.map(({ name }) => name));
    if (continued === 0) return taken;
    for (let entry = index.firstEntry(continued); entry < index.endEntry(continued); entry += 1) {
      const name = index.entryName(entry);
      if (upper !== undefined && taken.has(name)) continue;
      taken.add(name);
      children.push({ name, lower: index.entryInode(entry) });
    }
    return taken;
  }

  /** Names that the image has here and the view has not. */
  #addVanished(children: Child[], shown: ReadonlySet<ByteString>, below: number): void {
    const { index } = this.#tree;
    for (let entry = index.firstEntry(below); entry < index.endEntry(below); entry += 1) {
      const name = index.entryName(entry);
      if (!shown.has(name)) children.push({ name });
    }
  }

  *#visit(frame: Frame, child: Child): Generator<ViewChange, void, undefined> {
    const tree = this.#tree;
    const path = joinBytes(frame.path, child.name);
    const below = tree.lookup(frame.below, child.name);
    const { position } = child;
    if (position !== undefined) {
      const directory = frame.upper!.children.get(position);
      if (directory !== undefined) {
        yield* this.#visitDirectory(directory.facts, path, below, directory, directory.continued);
      } else if (tree.isWhiteout(frame.upper!, position)) {
        yield* this.#visitWhiteout(frame.upper!, position, path, below);
      } else {
        const group = this.#links.groupOfUpper(frame.upper!, position);
        const facts = group?.facts ?? tree.fileFacts(frame.upper!, position);
        const isApart = group === undefined && this.#isApart(frame.upper!, position, below);
        yield* this.#visitFile(facts, group, path, isApart, below);
      }
      return;
    }
    if (child.extra instanceof LinkGroup) {
      yield* this.#visitFile(child.extra.facts, child.extra, path, false, below);
      return;
    }
    const lower =
      child.extra === "directory" ? tree.lookup(frame.continued, child.name) : child.lower;
    if (lower === undefined) {
      yield* this.#emit({ kind: "D", path });
    } else if (tree.directoryOf(lower) !== 0) {
      yield* this.#visitDirectory(tree.lowerFacts(lower), path, below, undefined, lower);
    } else {
      const group = this.#links.groupOfLower(lower);
      yield* this.#visitFile(group?.facts ?? tree.lowerFacts(lower), group, path, false, below);
    }
  }

  *#visitWhiteout(
    upper: UpperDirectory,
    position: number,
    path: ByteString,
    below: number,
  ): Generator<ViewChange, void, undefined> {
    if (this.#tree.isVisibleDevice(upper, position)) {
      const facts = this.#tree.fileFacts(upper, position);
      yield* this.#emit({ kind: below === 0 ? "A" : "C", path, facts });
    } else if (below !== 0) {
      yield* this.#emit({ kind: "D", path });
    }
  }

  *#visitDirectory(
    facts: ObjectFacts,
    path: ByteString,
    belowInode: number,
    upper: UpperDirectory | undefined,
    continued: number,
  ): Generator<ViewChange, void, undefined> {
    const below = this.#tree.directoryOf(belowInode);
    const isOpaque = this.#isOpaque(continued, below);
    const kind = belowInode === 0 ? "A" : "C";
    const change: ViewChange = { kind, path, facts, isOpaque };
    const isChanged =
      below === 0 || isOpaque || !hasEqualMetadata(facts, this.#tree.lowerFacts(below));
    const effective = this.#style === "opaque" && continued !== below ? 0 : below;
    if (isChanged) yield* this.#emit(change);
    this.#push(path, upper, continued, effective, isChanged ? undefined : change);
  }

  /** True when it was one file with other names in the image and is not any more. */
  #isApart(upper: UpperDirectory, position: number, below: number): boolean {
    const isFile = below !== 0 && this.#tree.directoryOf(below) === 0;
    return isFile && this.#links.losesNames(upper, position, below);
  }

  *#visitFile(
    facts: ObjectFacts,
    group: LinkGroup | undefined,
    path: ByteString,
    isApart: boolean,
    below: number,
  ): Generator<ViewChange, void, undefined> {
    const isChanged =
      group === undefined
        ? isApart || below === 0 || !this.#equalsLower(facts, below)
        : group.isChanged;
    if (!isChanged) return;
    const kind = below === 0 ? "A" : "C";
    if (group?.firstPath !== undefined) {
      yield* this.#emit({ kind, path, facts, linkTo: group.firstPath });
      return;
    }
    if (group !== undefined) group.firstPath = path;
    yield* this.#emit({ kind, path, facts });
  }

  /** Yields the directories above that wait for a reason, then the change. */
  *#emit(change: ViewChange): Generator<ViewChange, void, undefined> {
    for (const frame of this.#frames) {
      const { pending } = frame;
      if (pending === undefined) continue;
      frame.pending = undefined;
      yield pending;
    }
    yield change;
  }

  #equalsLower(facts: ObjectFacts, inode: number): boolean {
    const lower = this.#tree.lowerFacts(inode);
    if (!hasEqualMetadata(facts, lower)) return false;
    if ((facts.mode & S_IFMT) !== S_IFREG) return true;
    return this.content.isEqual(facts.source!, lower.source!, facts.size);
  }
}

function mtimeOf(facts: ObjectFacts): Pick<ObjectFacts, "mtimeSec" | "mtimeNsec"> {
  return { mtimeSec: facts.mtimeSec, mtimeNsec: facts.mtimeNsec };
}

/** True when everything but content is equal. */
function hasEqualMetadata(one: ObjectFacts, other: ObjectFacts): boolean {
  const isDirectory = (one.mode & S_IFMT) === S_IFDIR;
  return (
    one.mode === other.mode &&
    one.uid === other.uid &&
    one.gid === other.gid &&
    one.rdev === other.rdev &&
    (isDirectory || one.size === other.size) &&
    one.mtimeSec === other.mtimeSec &&
    one.mtimeNsec === other.mtimeNsec &&
    one.target === other.target &&
    one.xattrs.length === other.xattrs.length &&
    one.xattrs.every((xattr, position) => {
      const counterpart = other.xattrs[position]!;
      return xattr.name === counterpart.name && xattr.value.equals(counterpart.value);
    })
  );
}
