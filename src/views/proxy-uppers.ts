/**
 * From mounts that containerd hands around to the snapshots that they show: a differ is only told how to
 * mount what it compares.
 */

import type { ContainerdRow } from "../metadata/containerd-table.js";
import { UnsupportedError } from "../system/errors.js";
import type { ProxyDirectories } from "./proxy-directories.js";
import type { ProxyMount } from "./proxy-mount-forms.js";
import type { ProxyMounts } from "./proxy-mounts.js";

/** What of a mount matters here. */
export type ShownMount = Pick<ProxyMount, "source" | "options"> & { readonly type: string };

/** The layers below an active snapshot. */
export interface LowerChain {
  /** Absent when there are none. */
  readonly indexPath: string | undefined;
  /** Base first. */
  readonly layerDirs: readonly string[];
}

/** What a mount of an active snapshot or a view needs besides its lower chain. */
export function upperOf(row: ContainerdRow, directories: ProxyDirectories) {
  const readOnly = row.kind === "view";
  return {
    readOnly,
    privileged: true,
    upperDir: readOnly ? undefined : directories.fs(row.id),
    workDir: readOnly ? undefined : directories.work(row.id),
  };
}

/** An active snapshot, held: nobody mounts, commits or removes it meanwhile. */
export interface HeldUpper {
  readonly id: number;
  /** The committed snapshot below it. */
  readonly parentId: number | undefined;
  readonly upperDir: string;
  readonly workDir: string;
  /** Where the chain's index will be, once the snapshot is committed. */
  readonly indexPath: string;
  /** Waits until the parent's index is built. */
  lower(): Promise<LowerChain>;
}

/** Where the parts of mounts are looked up. */
export interface MountLookup {
  readonly directories: ProxyDirectories;
  readonly mounts: ProxyMounts;
  row(id: number): ContainerdRow | undefined;
}

/** The snapshot that mounts show to be written to. @throws UnsupportedError none of ours */
export function activeOf(lookup: MountLookup, mounts: readonly ShownMount[]): ContainerdRow {
  const mount = only(mounts);
  const upper = optionOf(mount, "upperdir");
  const id = upper === undefined ? boundId(lookup, mount) : lookup.directories.idOf(upper);
  const row = id === undefined ? undefined : lookup.row(id);
  if (row?.kind === "active") return row;
  throw new UnsupportedError("the mounts show no active snapshot of varve's");
}

/**
 * The committed snapshot that mounts show as it is; undefined for an empty root.
 *
 * @throws UnsupportedError none of ours
 */
export function baseOf(lookup: MountLookup, mounts: readonly ShownMount[]): number | undefined {
  if (mounts.length === 0) return undefined;
  const mount = only(mounts);
  const [top] = optionOf(mount, "lowerdir")?.split(":") ?? [];
  const isWritable = optionOf(mount, "upperdir") !== undefined;
  const id = top === undefined ? boundId(lookup, mount) : lookup.directories.idOf(top);
  const row = id === undefined || isWritable ? undefined : lookup.row(id);
  if (row?.kind === "committed") return row.id;
  if (row?.kind === "view") return row.parentId;
  throw new UnsupportedError("the mounts show no unchanged snapshot of varve's");
}

function only(mounts: readonly ShownMount[]): ShownMount {
  const [mount] = mounts;
  if (mount !== undefined && mounts.length === 1) return mount;
  throw new UnsupportedError(`${mounts.length} mounts at once are none of varve's`);
}

/** Of a bind mount: of a directory, or of a FUSE mount of ours. */
function boundId({ directories, mounts }: MountLookup, mount: ShownMount): number | undefined {
  return directories.idOf(mount.source) ?? mounts.idOf(mount.source);
}

function optionOf({ options }: ShownMount, name: string): string | undefined {
  return options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
}
