/** What a power cut took from containerd's snapshots. */

import type { ContainerdRow } from "../metadata/containerd-table.js";
import type { Database } from "../metadata/database.js";
import type { Log } from "../snapshots/log.js";
import type { ProxyDirectories } from "./proxy-directories.js";

/** Makes empty directories again; committed snapshots that have lost theirs go, with all that is built on them. */
export function recoverDirectories(
  { containerd }: Database,
  directories: ProxyDirectories,
  log: Log,
): void {
  const deleteWithChildren = ({ id }: ContainerdRow): void => {
    for (const child of containerd.children(id)) deleteWithChildren(child);
    containerd.delete(id);
    directories.remove(id);
  };
  for (const row of containerd.list()) {
    const { id, kind, key, parentId } = row;
    if (directories.has(id) || containerd.getById(id) === undefined) continue;
    if (kind === "committed") {
      log.warn(
        `containerd: snapshot ${key} had lost its directory; its image must be unpacked again`,
      );
      deleteWithChildren(row);
    } else {
      directories.create(id, parentId);
    }
  }
}
