/** containerd's snapshotter interface over our key space. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ContainerdRow } from "../../metadata/containerd-table.js";
import type { Labels } from "../../metadata/labels.js";
import { InvalidArgumentError } from "../../system/errors.js";
import type { ProxyMount } from "../../views/proxy-mount-forms.js";
import type { ProxySnapshots } from "../../views/proxy-snapshots.js";
import {
  type InfoSchema,
  Kind,
  type Snapshots,
} from "../gen/containerd/services/snapshots/v1/snapshots_pb.js";
import type { Handlers } from "../grpc-adapter.js";
import { toTimestamp } from "../messages.js";
import { compileFilters, type FieldReader } from "./filter.js";

// containerd's own services send as many at a time.
const LIST_BATCH = 100;
const KINDS = { view: Kind.VIEW, active: Kind.ACTIVE, committed: Kind.COMMITTED } as const;

/** Handlers of containerd.services.snapshots.v1. */
export function snapshotHandlers(snapshots: ProxySnapshots): Handlers<typeof Snapshots> {
  return {
    prepare: async ({ key, parent, labels }) => ({
      mounts: mountMessages(await snapshots.prepare({ kind: "active", key, parent, labels })),
    }),
    view: async ({ key, parent, labels }) => ({
      mounts: mountMessages(await snapshots.prepare({ kind: "view", key, parent, labels })),
    }),
    mounts: async ({ key }) => ({ mounts: mountMessages(await snapshots.mounts(key)) }),
    commit: async ({ key, name, labels, parent }) => {
      await snapshots.commit({ key, name, labels, parent });
      return {};
    },
    remove: async ({ key }) => {
      await snapshots.remove(key);
      return {};
    },
    stat: ({ key }) => ({ info: infoMessage(snapshots.get(key)) }),
    update: ({ info, updateMask }) => {
      if (info === undefined) throw new InvalidArgumentError("update snapshot: no info given");
      const change = labelChange(info.labels, updateMask?.paths ?? []);
      return { info: infoMessage(snapshots.setLabels(info.name, change)) };
    },
    list: async function* ({ filters }) {
      const passes = compileFilters(filters);
      const rows = snapshots.list().filter((row) => passes(fieldsOf(row)));
      for (let start = 0; start < rows.length; start += LIST_BATCH) {
        yield { info: rows.slice(start, start + LIST_BATCH).map(infoMessage) };
      }
    },
    usage: async ({ key }) => {
      const { bytes, inodes } = await snapshots.usage(key);
      return { size: BigInt(bytes), inodes: BigInt(inodes) };
    },
    cleanup: async () => {
      await snapshots.cleanup();
      return {};
    },
  };
}

function mountMessages(mounts: readonly ProxyMount[]) {
  return mounts.map(({ type, source, options }) => ({ type, source, options: [...options] }));
}

function infoMessage(row: ContainerdRow): MessageInitShape<typeof InfoSchema> {
  return {
    name: row.key,
    parent: row.parent ?? "",
    kind: KINDS[row.kind],
    createdAt: toTimestamp(row.createdNs),
    updatedAt: toTimestamp(row.updatedNs),
    labels: { ...row.labels },
  };
}

/** What a field mask makes of labels; without one all are replaced. @throws InvalidArgumentError */
function labelChange(given: Labels, paths: readonly string[]): (labels: Labels) => Labels {
  for (const path of paths) {
    if (path === "labels" || path.startsWith("labels.")) continue;
    throw new InvalidArgumentError(
      `update snapshot: ${JSON.stringify(path)} cannot be changed, only labels can`,
    );
  }
  if (paths.length === 0 || paths.includes("labels")) return () => given;
  return (labels) => {
    const changed = new Map(Object.entries(labels));
    for (const path of paths) {
      const key = path.slice("labels.".length);
      const value = given[key] ?? "";
      if (value === "") changed.delete(key);
      else changed.set(key, value);
    }
    return Object.fromEntries(changed);
  };
}

function fieldsOf(row: ContainerdRow): FieldReader {
  return ([field, ...rest]) => {
    if (field === "name") return row.key;
    if (field === "parent") return row.parent ?? "";
    if (field === "kind") return row.kind;
    if (field !== "labels") return undefined;
    const label = rest.join(".");
    return Object.hasOwn(row.labels, label) ? row.labels[label] : undefined;
  };
}
