/** Unpacked layers: every row has its directory, its index says what its tree says, its tree what its blob says. */

import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { type Digest, hexOf } from "../../content/digest.js";
import type { SnapshotRow } from "../../metadata/snapshot-table.js";
import { BaseError, CancelledError, UnavailableError } from "../../system/errors.js";
import type { Core } from "../core.js";
import { type CheckOptions, STRAY_AGE_MS } from "./faults.js";
import { repairSnapshots } from "./repair-snapshots.js";

/** A snapshot that is not what it should be. */
export interface DamagedSnapshot {
  readonly row: SnapshotRow;
  readonly kind: "snapshot-missing" | "snapshot-damaged";
  readonly problem: string;
}

/** What came of it. */
export interface SnapshotsChecked {
  readonly verifiedBytes: number;
  readonly unverified: string[];
}

/** Checks all snapshots, bases first, and makes damaged ones again from their blobs. */
export async function checkSnapshots(core: Core, o: CheckOptions): Promise<SnapshotsChecked> {
  const damaged: DamagedSnapshot[] = [];
  const bad = new Set<string>();
  const outcome: { verifiedBytes: number; unverified: string[] } = {
    verifiedBytes: 0,
    unverified: [],
  };
  for (const row of basesFirst(core.snapshots.list())) {
    if (o.signal?.aborted === true) throw new CancelledError("check: cancelled");
    o.onProgress?.({ id: row.name, action: "verifying", current: 0, total: 0 });
    const found = await examine(core, row, bad, o, outcome);
    if (found === undefined || !core.snapshots.has(row.name as Digest)) continue;
    const { at, ...verdict } = found;
    for (const member of chainFrom(core, at, row)) {
      if (bad.has(member.name)) continue;
      bad.add(member.name);
      damaged.push({ row: member, ...(member.name === at ? verdict : standsOn(member)) });
    }
  }
  await repairSnapshots(core, damaged, o);
  await checkStraySnapshots(core, o);
  return outcome;
}

function basesFirst(rows: readonly SnapshotRow[]): SnapshotRow[] {
  const children = new Map<string, SnapshotRow[]>();
  for (const row of rows) {
    const siblings = children.get(row.parent ?? "");
    if (siblings === undefined) children.set(row.parent ?? "", [row]);
    else siblings.push(row);
  }
  const ordered = [...(children.get("") ?? [])];
  // What is appended is met later by the same loop.
  for (const row of ordered) ordered.push(...(children.get(row.name) ?? []));
  return ordered;
}

type Verdict = Omit<DamagedSnapshot, "row">;

/** A verdict on the snapshot `at`, which is below the one that was examined, or that one. */
type Finding = (Verdict & { readonly at: string }) | undefined;

/** The rows from the one with that name up to `top`. */
function chainFrom(core: Core, name: string, top: SnapshotRow): SnapshotRow[] {
  const chain = [top];
  for (let row = top; row.name !== name && row.parent !== undefined; chain.unshift(row)) {
    row = core.snapshots.get(row.parent as Digest);
  }
  return chain;
}

function standsOn({ parent }: SnapshotRow): Verdict {
  return { kind: "snapshot-damaged", problem: `it stands on ${parent}, which is damaged` };
}

async function examine(
  core: Core,
  row: SnapshotRow,
  bad: ReadonlySet<string>,
  o: CheckOptions,
  outcome: { verifiedBytes: number; unverified: string[] },
): Promise<Finding> {
  const chainId = row.name as Digest;
  const own = (verdict: Verdict | undefined) => verdict && { ...verdict, at: row.name };
  if (!existsSync(core.snapshots.treeOf(chainId))) {
    return own({ kind: "snapshot-missing", problem: "its fs is missing" });
  }
  if (row.parent !== undefined && bad.has(row.parent)) return own(standsOn(row));
  try {
    const difference = await core.snapshots.verifyIndex(row);
    if (difference !== undefined) {
      return { kind: "snapshot-damaged", problem: difference.problem, at: difference.chainId };
    }
    return o.verifyContent ? own(await examineContent(core, row, o, outcome)) : undefined;
  } catch (error) {
    // A thread that has died, or a caller that has gone, says nothing about the disk.
    const isOther = error instanceof CancelledError || error instanceof UnavailableError;
    if (!(error instanceof BaseError) || isOther) throw error;
    return own({ kind: "snapshot-damaged", problem: error.message });
  }
}

async function examineContent(
  core: Core,
  row: SnapshotRow,
  o: CheckOptions,
  outcome: { verifiedBytes: number; unverified: string[] },
): Promise<Verdict | undefined> {
  const blob = core.snapshots.blobOf(row.name as Digest);
  if (blob === undefined || !core.content.has(blob)) {
    outcome.unverified.push(row.name);
    return undefined;
  }
  const { mediaType } = core.content.info(blob);
  const source = { blob, blobPath: core.content.path(blob), mediaType };
  const difference = await core.snapshots.verifyContent(row, source, o.signal);
  outcome.verifiedBytes += row.sizeBytes;
  return difference === undefined
    ? undefined
    : { kind: "snapshot-damaged", problem: `it is not what ${blob} holds: ${difference}` };
}

/** Directories of no row: drafts of dead work, and what a removal left. */
async function checkStraySnapshots(core: Core, o: CheckOptions): Promise<void> {
  const directory = path.join(core.paths.root, "snapshots");
  for (const name of await readdir(directory)) {
    const found = await stat(path.join(directory, name)).catch(() => undefined);
    if (found === undefined || Date.now() - found.ctimeMs < STRAY_AGE_MS) continue;
    const rows = core.snapshots.list();
    if (rows.some((row) => hexOf(row.name as Digest) === name)) continue;
    if (new Set(core.unpacker.busy()).has(`sha256:${name}`)) continue;
    if (o.repair) await core.tasks.removeTree(path.join(directory, name));
    o.onFault({
      kind: "snapshot-stray",
      object: path.join("snapshots", name),
      problem: "no row of the database knows this directory",
      isRepaired: o.repair,
      remedy: o.repair ? "removed" : '"varve check --repair" removes it',
    });
  }
}
