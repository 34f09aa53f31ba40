/**
 * The image store: images by reference and by ID.
 *
 * Vocabulary: a *reference* names a *target* (a manifest or an index); the *image* of a target is
 * the manifest chosen for a platform, and its *ID* is the digest of that manifest's config. Images
 * with the same ID are one image with several names. An image without a name is *dangling*.
 *
 * The table of references is the truth and is read each time; only what follows from immutable
 * content (target → image) is remembered.
 */

import { Mutex } from "async-mutex";
import type { ContentStore } from "../content/content-store.js";
import type { Digest } from "../content/digest.js";
import type { Database } from "../metadata/database.js";
import type { EventLog } from "../metadata/event-log.js";
import type { Labels } from "../metadata/labels.js";
import type { ReferenceRow, ReferenceTarget } from "../metadata/reference-table.js";
import { FailedPreconditionError, InvalidArgumentError } from "../system/errors.js";
import { faultPoint } from "../system/fault-points.js";
import { createdMs, filterImages } from "./image-filters.js";
import { findImage, leavingReferences } from "./image-lookup.js";
import {
  type ImageTarget,
  isPinned,
  mergeImages,
  PINNED_LABEL,
  type Summary,
  summaryOf,
} from "./image-merge.js";
import type { ImageRecord, RemovedImage, ResolvedImage } from "./image-record.js";
import { resolveTarget } from "./image-resolver.js";
import { OCI_MANIFEST } from "./media-types.js";
import { hostPlatform, normalizePlatform, type Platform, parsePlatform } from "./platform.js";
import { danglingName, isDanglingName, normalizeReference, parseReference } from "./reference.js";

export type { ImageRecord, ProgressEvent, RemovedImage, ResolvedImage } from "./image-record.js";

/** Looks at the references before a list waits for its turn among the changes. */
const MAX_ATTEMPTS = 8;

/** Images by reference and ID. */
export class ImageStore {
  readonly database: Database;
  readonly content: ContentStore;
  /** What is chosen out of an index when nobody says which. */
  readonly platform: Platform;
  readonly #events: EventLog | undefined;
  /** By target digest; content never changes, so neither does this while the content is here. */
  readonly #summaries = new Map<Digest, Summary>();
  /** Changes of references go one at a time: each decides by what the others left. */
  readonly #changes = new Mutex();

  constructor(options: {
    database: Database;
    content: ContentStore;
    platform?: Platform;
    /** Is told what becomes of names. */
    events?: EventLog;
  }) {
    this.database = options.database;
    this.content = options.content;
    this.#events = options.events;
    this.platform = normalizePlatform(options.platform ?? hostPlatform());
  }

  /**
   * The images, newest first; also those that only a view still uses. A reference whose manifest or
   * config is gone is left out (`remove` still takes its name).
   *
   * @param filters docker's: "reference=GLOB", "dangling=true", "label=K[=V]", "before=REF",
   *   "since=REF"; also "pinned=true"
   * @throws InvalidArgumentError a malformed filter
   * @throws NotFoundError the image of "before" or "since"
   */
  async list(filters: readonly string[] = []): Promise<ImageRecord[]> {
    const images = mergeImages(await this.#targets(), this.database);
    images.sort((a, b) => createdMs(b) - createdMs(a) || (a.id < b.id ? -1 : 1));
    return filterImages(images, filters, (text) => findImage(images, text).image);
  }

  /**
   * One image by reference, ID or unique prefix of an ID.
   *
   * @throws NotFoundError
   * @throws InvalidArgumentError malformed, or a prefix of several IDs
   */
  async get(refOrId: string): Promise<ImageRecord> {
    return findImage(await this.list(), refOrId).image;
  }

  /**
   * Every target with what it is: of all references, then of views whose image lost its names. All
   * of them as they are at one moment, though reading what is not remembered takes time.
   */
  async #targets(): Promise<ImageTarget[]> {
    for (let attempt = 1; attempt < MAX_ATTEMPTS; attempt++) {
      const version = this.database.references.version;
      const targets = await this.#readTargets();
      // Changes are rare, and none happens while one is being made.
      if (this.database.references.version === version) return targets;
    }
    // What is remembered by now is nearly everything; one more look, between two changes.
    return await this.#changes.runExclusive(() => this.#readTargets());
  }

  async #readTargets(): Promise<ImageTarget[]> {
    const targets: ImageTarget[] = [];
    for (const row of this.database.references.list()) {
      const summary = await this.#summarize(row.target);
      if (summary !== undefined) targets.push({ reference: row, summary });
    }
    const named = new Set(targets.map((target) => target.summary.id));
    for (const view of this.database.views.list()) {
      if (named.has(view.imageId)) continue;
      const row = this.database.blobs.get(view.manifestDigest);
      // A docker manifest says its type itself; one that says nothing is OCI's.
      const summary = row && (await this.#summarize({ mediaType: OCI_MANIFEST, ...row }));
      if (summary !== undefined) targets.push({ summary });
    }
    return targets;
  }

  /** What a target is for the default platform; undefined when its manifest or config is not here. */
  async #summarize(target: ReferenceTarget): Promise<Summary | undefined> {
    const known = this.#summaries.get(target.digest);
    if (known !== undefined && this.content.has(known.id)) return known;
    try {
      const image = await this.#resolveTarget(target, undefined, target.digest);
      const summary = summaryOf(image);
      this.#summaries.set(target.digest, summary);
      return summary;
    } catch {
      // Damaged or incomplete content must not hide the other images; resolve tells why.
      return undefined;
    }
  }

  /**
   * Everything about one platform of an image.
   *
   * @param platform "os/arch[/variant]"; by default the store's, else any that is here
   * @throws NotFoundError no such image, platform, or a manifest or config that is not here
   * @throws CorruptDataError, UnsupportedError as the parsers; InvalidArgumentError as `get`
   */
  async resolve(refOrId: string, platform?: string): Promise<ResolvedImage> {
    const wanted = platform === undefined || platform === "" ? undefined : parsePlatform(platform);
    const row = this.#rowOf(refOrId);
    if (row !== undefined) return await this.#resolveTarget(row.target, wanted, row.name);
    const { image } = findImage(await this.list(), refOrId);
    const target = { digest: image.digest, mediaType: image.mediaType };
    const { size } = this.content.info(image.digest);
    return await this.#resolveTarget({ ...target, size }, wanted, image.id);
  }

  /** The record of one platform's image; its names are those of the same image or the same target. */
  async recordOf(image: ResolvedImage): Promise<ImageRecord> {
    const summary = summaryOf(image);
    const named = (await this.#targets()).flatMap(({ reference, summary: { id } }) => {
      const isOwn = id === image.id || reference?.target.digest === image.target.digest;
      return isOwn && reference !== undefined ? [{ reference, summary }] : [];
    });
    return mergeImages(named.length === 0 ? [{ summary }] : named, this.database)[0]!;
  }

  /** The image of a view, by its manifest, whether or not a reference still names it. */
  async resolveManifest(manifestDigest: Digest): Promise<ResolvedImage> {
    const { size, mediaType = OCI_MANIFEST } = this.content.info(manifestDigest);
    const target = { digest: manifestDigest, size, mediaType };
    const image = await this.#resolveTarget(target, undefined, manifestDigest);
    return { ...image, reference: image.id };
  }

  #rowOf(text: string): ReferenceRow | undefined {
    try {
      return this.database.references.get(normalizeReference(text));
    } catch {
      return undefined;
    }
  }

  async #resolveTarget(
    target: ReferenceTarget,
    wanted: Platform | undefined,
    name: string,
  ): Promise<ResolvedImage> {
    const { content, platform } = this;
    return await resolveTarget({ content, target, wanted, preferred: platform, name });
  }

  /**
   * Points a name to a target and forgets what was remembered of it. An image that loses its last
   * name by this stays, dangling. A pinned name stays pinned. Durable on return.
   *
   * @param reference any spelling; undefined for an image without a name
   * @throws NotFoundError the target, or its manifest or config, is not in the content store
   * @throws InvalidArgumentError a malformed reference
   */
  async create(
    reference: string | undefined,
    target: ReferenceTarget,
    labels: Labels = {},
  ): Promise<ImageRecord> {
    const name = reference === undefined ? undefined : normalizeReference(reference);
    return await this.#changes.runExclusive(() => this.#create(name, target, labels));
  }

  async #create(
    name: string | undefined,
    target: ReferenceTarget,
    labels: Labels = {},
  ): Promise<ImageRecord> {
    this.#summaries.delete(target.digest);
    const { id } = await this.#resolveTarget(target, undefined, name ?? target.digest);
    this.#put(name ?? danglingName(target.digest), id, target, labels);
    return await this.get(id);
  }

  #put(name: string, id: Digest, target: ReferenceTarget, labels: Labels): void {
    const { references, uses } = this.database;
    faultPoint("tag.begun");
    const isNew = this.database.transaction(() => {
      uses.touch(id);
      const others = references.listByTarget(target.digest);
      const isNamed = others.some((row) => !isDanglingName(row.name));
      if (isDanglingName(name) && isNamed) return false;
      const old = references.get(name);
      references.put(name, target, { ...old?.labels, ...labels });
      if (!isDanglingName(name)) references.delete(danglingName(target.digest));
      if (old?.target.digest === target.digest) return false;
      if (old !== undefined && references.listByTarget(old.target.digest).length === 0) {
        references.put(danglingName(old.target.digest), old.target);
      }
      return true;
    });
    faultPoint("tag.recorded");
    if (isNew)
      this.#events?.publish("image", isDanglingName(name) ? "create" : "tag", id, { name });
  }

  /**
   * Gives an image another name.
   *
   * @returns the normalised target
   * @throws NotFoundError no such source; InvalidArgumentError the target is malformed or a digest
   */
  async tag(source: string, target: string): Promise<string> {
    if (parseReference(target).digest !== undefined) {
      throw new InvalidArgumentError(`tag ${source} as ${target}: a new name cannot have a digest`);
    }
    const name = normalizeReference(target);
    // Both names at one moment: the source must not move between the look and the change.
    return await this.#changes.runExclusive(async () => {
      const { digest, mediaType, size } = (await this.resolve(source)).target;
      await this.#create(name, { digest, mediaType, size });
      return name;
    });
  }

  /** Reads a reference anew, after something other than this store changed it or its content. */
  async update(reference: string): Promise<ImageRecord | undefined> {
    const row = this.#rowOf(reference);
    if (row === undefined) return undefined;
    this.#summaries.delete(row.target.digest);
    const summary = await this.#summarize(row.target);
    return summary && (await this.get(summary.id));
  }

  /**
   * Pins or unpins one name, or with an ID all names of the image. A pinned image is left alone by
   * all that clean up.
   *
   * @returns the names
   * @throws NotFoundError, InvalidArgumentError as `get`
   */
  async setPinned(refOrId: string, pinned: boolean): Promise<string[]> {
    return await this.#changes.runExclusive(async () => {
      const named = this.#rowOf(refOrId);
      const { id } = await this.get(refOrId);
      const rows = named === undefined ? await this.#rowsOf(id) : [named];
      this.database.transaction(() => {
        for (const { name, target, labels } of rows) {
          const { [PINNED_LABEL]: _, ...others } = labels;
          const value: Labels = pinned ? { ...others, [PINNED_LABEL]: "pinned" } : others;
          this.database.references.put(name, target, value);
        }
      });
      for (const { name } of rows) {
        this.#events?.publish("image", pinned ? "pin" : "unpin", id, { name });
      }
      return rows.map((row) => row.name);
    });
  }

  /** Notes that an image is worked with: collection takes others first. A power cut may undo it. */
  touch(id: Digest): void {
    this.database.lazyTransaction(() => this.database.uses.touch(id));
  }

  /**
   * Removes names by docker's rules: a reference loses that name, and the image goes with its last
   * one; an ID loses its only name, or with `force` all of them. Content goes at the next garbage
   * collection, unless a view uses it.
   *
   * @throws NotFoundError, InvalidArgumentError as `get`
   * @throws FailedPreconditionError views use the image, a name is pinned, or an ID has several names,
   *   without `force`
   */
  async remove(refOrId: string, options: { force?: boolean } = {}): Promise<RemovedImage> {
    return await this.#changes.runExclusive(async () => {
      const force = options.force ?? false;
      const images = await this.list();
      const broken = this.#removeBroken(images, refOrId);
      if (broken !== undefined) return broken;
      const found = findImage(images, refOrId);
      const rows = await this.#rowsOf(found.image.id);
      const leaving = leavingReferences(rows, found.reference, force);
      if (!force) checkUnpinned(refOrId, leaving);
      const isLast = leaving.length === rows.length;
      const users = this.database.views.list().filter((view) => view.imageId === found.image.id);
      if (isLast && users.length > 0 && !force) {
        const names = users.map((view) => view.name).join(", ");
        throw new FailedPreconditionError(
          `remove image ${refOrId}: used by ${users.length === 1 ? "view" : "views"} ${names}; ` +
            "remove them first, or force to remove only the name",
        );
      }
      this.#deleteRows(leaving);
      const isGone = isLast && users.length === 0;
      this.#tellRemoved(found.image.id, leaving, isGone);
      return {
        untagged: leaving.map((row) => row.name).filter((name) => !isDanglingName(name)),
        deleted: isGone ? [found.image.id] : [],
      };
    });
  }

  /** A name whose content is gone is no image any more, but can still be removed. */
  #removeBroken(images: readonly ImageRecord[], refOrId: string): RemovedImage | undefined {
    const row = this.#rowOf(refOrId);
    if (row === undefined) return undefined;
    const names = images.flatMap((image) => [...image.repoTags, ...image.repoDigests]);
    if (names.includes(row.name)) return undefined;
    this.#deleteRows([row]);
    return { untagged: [row.name], deleted: [] };
  }

  /**
   * Removes all names of an image that nothing uses; of one that is in use, or got or lost a name
   * since it was looked at, none. In one transaction, so that it cannot come into use meanwhile.
   *
   * @returns false when it stays
   */
  async removeUnused(image: ImageRecord, isInUse: () => boolean): Promise<boolean> {
    return await this.#changes.runExclusive(async () => {
      const rows = await this.#rowsOf(image.id);
      const isGone = this.database.transaction(() => {
        const { references, uses } = this.database;
        const isSame = rows.every((row) => references.get(row.name)?.updatedNs === row.updatedNs);
        const isUsed = (uses.get(image.id) ?? 0n) > image.lastUsedNs || rows.some(isPinned);
        if (rows.length === 0 || !isSame || isUsed || isInUse()) return false;
        for (const row of rows) references.delete(row.name);
        return true;
      });
      if (isGone) this.#tellRemoved(image.id, rows, true);
      return isGone;
    });
  }

  #tellRemoved(id: Digest, rows: readonly ReferenceRow[], isGone: boolean): void {
    for (const { name } of rows) {
      if (!isDanglingName(name)) this.#events?.publish("image", "untag", id, { name });
    }
    if (isGone) this.#events?.publish("image", "delete", id);
  }

  #deleteRows(rows: readonly ReferenceRow[]): void {
    this.database.transaction(() => {
      for (const row of rows) this.database.references.delete(row.name);
    });
    faultPoint("untag.recorded");
  }

  async #rowsOf(id: Digest): Promise<ReferenceRow[]> {
    const targets = await this.#targets();
    return targets.flatMap(({ reference, summary }) =>
      reference !== undefined && summary.id === id ? [reference] : [],
    );
  }
}

function checkUnpinned(what: string, leaving: readonly ReferenceRow[]): void {
  const pinned = leaving.filter(isPinned).map((row) => row.name);
  if (pinned.length === 0) return;
  throw new FailedPreconditionError(
    `remove image ${what}: ${pinned.join(", ")} ${pinned.length === 1 ? "is" : "are"} pinned; ` +
      "unpin first, or force",
  );
}
