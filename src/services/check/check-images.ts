/** Names: what each one points to is here, whole. */

import type { Digest } from "../../content/digest.js";
import { listCandidates, missingContent } from "../../images/image-graph.js";
import { isIndexType } from "../../images/media-types.js";
import { isDanglingName } from "../../images/reference.js";
import { GC_SHALLOW_LABEL } from "../../metadata/labels.js";
import type { ReferenceRow } from "../../metadata/reference-table.js";
import { BaseError } from "../../system/errors.js";
import type { Core } from "../core.js";
import type { CheckOptions } from "./faults.js";

/** Checks all references, and the manifests of views; nothing of it can be repaired here. */
export async function checkImages(core: Core, o: CheckOptions): Promise<void> {
  for (const row of core.database.references.list()) {
    const problem = await problemOf(core, row);
    if (problem === undefined || core.database.references.get(row.name) === undefined) continue;
    const again = isDanglingName(row.name)
      ? "load its image again, or remove it by its ID"
      : `"varve pull ${row.name}", load it again, or "varve rmi ${row.name}"`;
    o.onFault({
      kind: "image-incomplete",
      object: row.name,
      problem,
      isRepaired: false,
      remedy: again,
    });
  }
  for (const view of core.views.list()) {
    const { manifestDigest } = view;
    if (core.content.has(manifestDigest)) continue;
    o.onFault({
      kind: "image-incomplete",
      object: `view ${view.name}`,
      problem: `the manifest ${manifestDigest} of its image is missing: it cannot be committed`,
      isRepaired: false,
      remedy: `pull or load ${view.image} again`,
    });
  }
}

async function problemOf(core: Core, { target }: ReferenceRow): Promise<string | undefined> {
  const { content } = core;
  try {
    if (!content.has(target.digest)) return `${target.digest}, which it names, is missing`;
    const candidates = await listCandidates(content, target);
    // Of an index only what was wanted is here.
    const here = isIndexType(target.mediaType)
      ? candidates.filter(({ descriptor }) => isWanted(core, descriptor.digest))
      : candidates;
    if (here.length === 0) return "no manifest of its index is here";
    for (const { descriptor } of here) {
      const missing = await missingContent(content, descriptor);
      if (missing !== undefined) return `${missing.digest}, which it needs, is missing`;
    }
    return undefined;
  } catch (error) {
    if (error instanceof BaseError) return error.message;
    throw error;
  }
}

function isWanted(core: Core, manifest: Digest): boolean {
  const row = core.database.blobs.get(manifest);
  return row !== undefined && row.labels[GC_SHALLOW_LABEL] === undefined;
}
