/**
 * Which repositories have a blob: remembered in its labels, so that a push to the same registry can
 * ask for a mount instead of sending it. The label is containerd's.
 */

import type { ContentStore } from "../content/content-store.js";
import type { Digest } from "../content/digest.js";
import type { RepositoryName } from "./access.js";

const PREFIX = "containerd.io/distribution.source.";
/** More sources make a mount no likelier. */
const MAX_SOURCES = 8;

/** Notes that a repository has the blob. Does nothing when the blob is gone. */
export function rememberSource(content: ContentStore, digest: Digest, name: RepositoryName): void {
  if (!content.has(digest)) return;
  const { labels } = content.info(digest);
  const key = PREFIX + name.domain;
  const known = split(labels[key]);
  if (known.includes(name.path)) return;
  const sources = [name.path, ...known].slice(0, MAX_SOURCES);
  content.setLabels(digest, { ...labels, [key]: sources.join(",") });
}

/** Other repositories of the same registry that have, or had, the blob; the latest first. */
export function sourcesOf(content: ContentStore, digest: Digest, name: RepositoryName): string[] {
  if (!content.has(digest)) return [];
  const { labels } = content.info(digest);
  return split(labels[PREFIX + name.domain]).filter((path) => path !== name.path);
}

function split(value: string | undefined): string[] {
  return (value ?? "").split(",").filter((one) => one !== "");
}
