/** `varve images` */

import type { Image } from "../../client/index.js";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { shortDigest, splitReference } from "../image-names.js";
import { formatList, type ListLayout } from "../list-output.js";
import { humanSize } from "../sizes.js";
import { longTime, relativeTime } from "../times.js";

interface ImagesFlags {
  readonly all?: boolean;
  readonly quiet?: boolean;
  readonly digests?: boolean;
  readonly trunc: boolean;
  readonly filter?: string[];
  readonly format?: string;
}

/** A row of the list: one reference of one image. */
interface ImageRow {
  readonly Repository: string;
  readonly Tag: string;
  readonly Digest: string;
  readonly ID: string;
  readonly CreatedSince: string;
  readonly CreatedAt: string;
  readonly Size: string;
  readonly Platform: string;
  readonly ChainID: string;
  readonly Unpacked: string;
  readonly Pinned: string;
  readonly LastUsed: string;
}

const HEADERS = {
  Repository: "REPOSITORY",
  Tag: "TAG",
  Digest: "DIGEST",
  ID: "IMAGE ID",
  CreatedSince: "CREATED",
  CreatedAt: "CREATED AT",
  Size: "SIZE",
  Platform: "PLATFORM",
  ChainID: "CHAIN ID",
  Unpacked: "UNPACKED",
  Pinned: "PINNED",
  LastUsed: "LAST USED",
} as const;

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("[repository]", "Only images of this name: REPOSITORY[:TAG], with * as wildcard")
    .option("-a, --all", "For docker's sake; all images are always shown")
    .option("-q, --quiet", "Show only IDs")
    .option("--digests", "Show digests")
    .option("--no-trunc", "Show whole IDs")
    .option(
      "-f, --filter <filter>",
      "reference=PATTERN, dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE, " +
        "pinned=true|false",
      collect,
    )
    .option("--format <format>", "table, json, or a Go template")
    .examples(
      [
        ["varve images", "All images"],
        ["varve images 'my*'", "Those whose name begins with my"],
        ["varve images -q -f dangling=true", "IDs of images without a name"],
        ["varve images --format '{{.Repository}} {{.Size}}'", "Two columns of your choice"],
      ],
      `Fields of templates: ${Object.keys(HEADERS).join(", ")}`,
    )
    .action((repository: string | undefined, flags: ImagesFlags) =>
      listImages(cli, repository, flags),
    );
}

async function listImages(
  cli: CliContext,
  repository: string | undefined,
  flags: ImagesFlags,
): Promise<void> {
  const filters = [...(flags.filter ?? [])];
  if (repository !== undefined) filters.push(`reference=${repository}`);
  const client = await cli.connect();
  const { images } = await client.listImages({ filters }, { signal: cli.signal });
  const rows = images.toSorted(newestFirst).flatMap((image) => rowsOf(image, flags.trunc));
  if (flags.quiet === true && flags.format === undefined) {
    // One image with three tags is still one image.
    for (const id of new Set(rows.map((row) => row.ID))) cli.print(id);
    return;
  }
  const layout = layoutOf(flags, rows);
  for (const line of await formatList(rows, layout, flags.format)) cli.print(line);
}

function newestFirst(a: Image, b: Image): number {
  const difference = Number((b.created?.seconds ?? 0n) - (a.created?.seconds ?? 0n));
  return difference !== 0 ? difference : a.id < b.id ? -1 : 1;
}

function layoutOf(flags: ImagesFlags, rows: readonly ImageRow[]): ListLayout<ImageRow> {
  const digest = flags.digests === true ? (["Digest"] as const) : [];
  // Docker's table, unless there is something that docker does not have.
  const pinned = rows.some((row) => row.Pinned === "true") ? (["Pinned"] as const) : [];
  return {
    headers: HEADERS,
    columns: ["Repository", "Tag", ...digest, "ID", "CreatedSince", "Size", ...pinned],
  };
}

function rowsOf(image: Image, isTruncated: boolean): ImageRow[] {
  const references = image.repoTags.length > 0 ? image.repoTags : [undefined];
  return references.map((reference) => {
    const name =
      reference === undefined ? { repository: "<none>", tag: "<none>" } : splitReference(reference);
    return {
      Repository: name.repository,
      Tag: name.tag,
      Digest: image.digest === "" ? "<none>" : image.digest,
      ID: isTruncated ? shortDigest(image.id) : image.id,
      CreatedSince: relativeTime(image.created, Date.now()),
      CreatedAt: longTime(image.created),
      Size: humanSize(image.size),
      Platform: platformOf(image),
      ChainID: isTruncated ? shortDigest(image.chainId) : image.chainId,
      Unpacked: String(image.unpacked),
      Pinned: String(isPinned(image, reference)),
      LastUsed: relativeTime(image.lastUsed, Date.now()),
    };
  });
}

/** A pin of a name without a tag (by digest, or none) shows on every row of the image. */
function isPinned(image: Image, reference: string | undefined): boolean {
  return image.pinnedReferences.some(
    (name) => name === reference || !image.repoTags.includes(name),
  );
}

function platformOf(image: Image): string {
  return [image.os, image.architecture, image.variant].filter((part) => part !== "").join("/");
}
