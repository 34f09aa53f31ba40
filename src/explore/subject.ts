/** What is explored: an image or a view, with its layers and merged tree. Everything is read, nothing changed. */

import {
  Change_Kind,
  type InspectImageResponse,
  type VarveClient,
  type View,
} from "../client/index.js";
import { type ByteString, fromBuffer, joinBytes, toBytes } from "../system/bytes.js";
import { UnsupportedError } from "../system/errors.js";
import { applyLayerTree, SeenFiles } from "./layer-walk.js";
import { type Entry, MergedTree } from "./merged-tree.js";

/** A layer as people know it. */
export interface LayerInfo {
  /** The blob's digest; "" for what a view has changed. */
  readonly digest: string;
  readonly chainId: string;
  /** The instruction that made it. */
  readonly command: string;
  /** RFC 3339, or "". */
  readonly created: string;
  /** Bytes of the compressed blob. */
  readonly blobBytes: number;
  /** Where its files are, best first. */
  readonly directories: readonly string[];
}

/** An image or a view. */
export interface Subject {
  /** As it was asked for. */
  readonly name: string;
  readonly kind: "image" | "view";
  readonly imageId: string;
  readonly layers: readonly LayerInfo[];
  readonly tree: MergedTree;
}

/** A change of a view. */
export interface ViewChange {
  readonly kind: "A" | "C" | "D";
  /** Absolute. */
  readonly path: ByteString;
}

/**
 * Reads an image or a view, whichever has that name; a view before an image.
 *
 * @throws NotFoundError neither
 */
export async function readSubject(
  client: VarveClient,
  name: string,
  privileged: boolean,
): Promise<Subject> {
  const view = await findView(client, name);
  const image = await readImage(client, view?.imageId ?? name);
  const tree = new MergedTree();
  const layers = describeLayers(image);
  for (const [number, { directories }] of layers.entries()) {
    applyLayerTree(tree, number, directories[0]!, privileged);
  }
  const imageId = image.image?.id ?? "";
  if (view === undefined) return { name, kind: "image", imageId, layers, tree };
  const changes = await readChanges(client, view.id);
  const top: LayerInfo = {
    digest: "",
    chainId: "",
    command: `changes in view ${view.name}`,
    created: "",
    blobBytes: 0,
    directories: [view.upperDir, ...(view.mounted ? [view.target] : [])].filter(Boolean),
  };
  applyChanges(tree, layers.length, changes, top.directories);
  return { name, kind: "view", imageId, layers: [...layers, top], tree };
}

/** The view of that name, ID or mount path, if there is one. */
export async function findView(client: VarveClient, name: string): Promise<View | undefined> {
  try {
    return (await client.inspectView({ name })).view;
  } catch (error) {
    // Not by its class: the command line's client has classes of its own bundle.
    if ((error as { code?: unknown }).code === "NOT_FOUND") return undefined;
    throw error;
  }
}

/** What a view has changed so far. */
export async function readChanges(client: VarveClient, name: string): Promise<ViewChange[]> {
  const kinds = {
    [Change_Kind.ADDED]: "A",
    [Change_Kind.CHANGED]: "C",
    [Change_Kind.DELETED]: "D",
  };
  const found: ViewChange[] = [];
  for await (const { changes } of client.diffView({ name })) {
    for (const { kind, path } of changes) {
      const letter = (kinds as Record<number, string>)[kind] as ViewChange["kind"] | undefined;
      if (letter !== undefined) found.push({ kind: letter, path: fromBuffer(Buffer.from(path)) });
    }
  }
  return found;
}

async function readImage(client: VarveClient, reference: string): Promise<InspectImageResponse> {
  const response = await client.inspectImage({ reference });
  const isUnpacked = response.lowerDirs.length > 0 || response.layers.length === 0;
  if (isUnpacked) return response;
  for await (const _ of client.unpackImage({ reference })) {
    // Only its end matters.
  }
  return client.inspectImage({ reference });
}

interface HistoryEntry {
  readonly created?: string;
  readonly created_by?: string;
  readonly empty_layer?: boolean;
}

function describeLayers(image: InspectImageResponse): LayerInfo[] {
  // Topmost first there.
  const directories = image.lowerDirs.toReversed();
  const config = JSON.parse(Buffer.from(image.config).toString("utf8")) as {
    history?: HistoryEntry[];
  };
  const history = (config.history ?? []).filter((entry) => entry.empty_layer !== true);
  if (directories.length !== image.layers.length) {
    throw new UnsupportedError(`explore ${image.image?.id}: not all of its layers are unpacked`);
  }
  return image.layers.map((layer, number) => ({
    digest: layer.digest,
    chainId: image.chainIds[number] ?? "",
    command: history[number]?.created_by ?? "",
    created: history[number]?.created ?? "",
    blobBytes: Number(layer.size),
    directories: [directories[number]!],
  }));
}

function applyChanges(
  tree: MergedTree,
  layer: number,
  changes: readonly ViewChange[],
  directories: readonly string[],
): void {
  const files = new SeenFiles();
  for (const { kind, path } of changes) {
    const cut = path.lastIndexOf("/");
    const parent = tree.find(path.slice(0, cut) as ByteString);
    const name = path.slice(cut + 1) as ByteString;
    if (parent === undefined) continue;
    const entry = kind === "D" ? undefined : entryIn(directories, path, files);
    // Gone since it was listed: a live view goes on changing.
    if (entry === undefined) tree.remove(layer, parent, name);
    else if (name === "") tree.putRoot(layer, entry);
    else tree.put(layer, parent, name, entry);
  }
}

function entryIn(
  directories: readonly string[],
  path: ByteString,
  files: SeenFiles,
): Entry | undefined {
  for (const directory of directories) {
    try {
      return files.entry(joinBytes(toBytes(directory), path.slice(1) as ByteString));
    } catch {
      // Not in the upper directory: then below a directory that was renamed, which only the view shows.
    }
  }
  return undefined;
}
