/** `varve df` */

import type { DiskUsageResponse, ImageUsage, UsageTotal, View } from "../../client/index.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { familiarName, shortDigest, splitReference } from "../image-names.js";
import { formatList, type ListLayout } from "../list-output.js";
import { humanSize } from "../sizes.js";
import { relativeTime } from "../times.js";
import { UsageError } from "../usage-error.js";

interface DfFlags {
  readonly verbose?: boolean;
  readonly format?: string;
}

/** A row of the summary; docker's fields. */
interface TotalRow {
  readonly Type: string;
  readonly TotalCount: string;
  readonly Active: string;
  readonly Size: string;
  readonly Reclaimable: string;
}

const TOTALS: ListLayout<TotalRow> = {
  headers: {
    Type: "TYPE",
    TotalCount: "TOTAL",
    Active: "ACTIVE",
    Size: "SIZE",
    Reclaimable: "RECLAIMABLE",
  },
  columns: ["Type", "TotalCount", "Active", "Size", "Reclaimable"],
};

const IMAGE_HEADERS = {
  Repository: "REPOSITORY",
  Tag: "TAG",
  ID: "IMAGE ID",
  CreatedSince: "CREATED",
  Content: "CONTENT",
  Unpacked: "UNPACKED",
  SharedSize: "SHARED SIZE",
  UniqueSize: "UNIQUE SIZE",
  Views: "VIEWS",
} as const;
type ImageRow = Readonly<Record<keyof typeof IMAGE_HEADERS, string>>;

const VIEW_HEADERS = {
  ID: "VIEW ID",
  Name: "NAME",
  Image: "IMAGE",
  Status: "STATUS",
  Files: "FILES",
  Size: "SIZE",
} as const;
type ViewRow = Readonly<Record<keyof typeof VIEW_HEADERS, string>>;

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option("-v, --verbose", "Show each image and each view")
    .option("--format <format>", "table, json, or a Go template (not with --verbose: json only)")
    .examples(
      [
        ["varve df", "Images, unpacked layers, views, build cache"],
        ["varve df -v", "And each image: what it shares with others, and what is its own"],
        ["varve df --format '{{.Type}} {{.Reclaimable}}'", "Two columns of your choice"],
        ["varve df -v --format json", "Everything, in bytes"],
      ],
      "CONTENT is compressed, as pulled; UNPACKED is on the disk beside it. What several images share " +
        "counts once in the totals. RECLAIMABLE is what nothing uses: see varve prune --all.",
    )
    .action((flags: DfFlags) => diskUsage(cli, flags));
}

async function diskUsage(cli: CliContext, flags: DfFlags): Promise<void> {
  const isVerbose = flags.verbose === true;
  if (isVerbose && flags.format !== undefined && flags.format !== "json") {
    throw new UsageError("df: with --verbose the only format is json");
  }
  const client = await cli.connect();
  const usage = await client.diskUsage({ signal: cli.signal });
  const lines = isVerbose
    ? await verboseLines(usage, flags.format)
    : await formatList(totalRows(usage), TOTALS, flags.format);
  for (const line of lines) cli.print(line);
}

function totalRows(usage: DiskUsageResponse): TotalRow[] {
  const kinds: [string, UsageTotal | undefined][] = [
    ["Images", usage.images],
    ["Unpacked layers", usage.snapshots],
    ["Views", usage.views],
    ["Build cache", usage.buildCache],
  ];
  return kinds.flatMap(([type, total]) => (total === undefined ? [] : [totalRow(type, total)]));
}

function totalRow(type: string, total: UsageTotal): TotalRow {
  const { bytes, reclaimableBytes } = total;
  const percent = bytes === 0n ? "" : ` (${(100n * reclaimableBytes) / bytes}%)`;
  return {
    Type: type,
    TotalCount: total.count.toString(),
    Active: total.active.toString(),
    Size: humanSize(bytes),
    Reclaimable: `${humanSize(reclaimableBytes)}${percent}`,
  };
}

async function verboseLines(usage: DiskUsageResponse, format?: string): Promise<string[]> {
  if (format === "json") {
    const { toJsonLine } = await import("../json.js");
    return [toJsonLine(verboseData(usage))];
  }
  const images = await formatList<ImageRow>(
    usage.imageUsages.flatMap(imageRows),
    {
      headers: IMAGE_HEADERS,
      columns: [
        ...(["Repository", "Tag", "ID", "CreatedSince", "Content", "Unpacked"] as const),
        ...(["SharedSize", "UniqueSize", "Views"] as const),
      ],
    },
    undefined,
  );
  const views = await formatList<ViewRow>(
    usage.viewUsages.map(viewRow),
    { headers: VIEW_HEADERS, columns: ["ID", "Name", "Image", "Status", "Files", "Size"] },
    undefined,
  );
  const totals = await formatList(totalRows(usage), TOTALS, undefined);
  return ["Images:", "", ...images, "", "Views:", "", ...views, "", "Totals:", "", ...totals];
}

function imageRows(usage: ImageUsage): ImageRow[] {
  const { image } = usage;
  if (image === undefined) return [];
  const [reference] = image.repoTags;
  const name =
    reference === undefined ? { repository: "<none>", tag: "<none>" } : splitReference(reference);
  return [
    {
      Repository: name.repository,
      Tag: name.tag,
      ID: shortDigest(image.id),
      CreatedSince: relativeTime(image.created, Date.now()),
      Content: humanSize(usage.contentBytes),
      Unpacked: humanSize(usage.unpackedBytes),
      SharedSize: humanSize(usage.sharedBytes),
      UniqueSize: humanSize(usage.uniqueBytes),
      Views: String(usage.views.length),
    },
  ];
}

function viewRow(view: View): ViewRow {
  return {
    ID: shortDigest(view.id),
    Name: view.name,
    Image: familiarName(view.image),
    Status: view.mounted ? "mounted" : "unmounted",
    Files: view.upperInodes.toString(),
    Size: humanSize(view.upperBytes),
  };
}

function verboseData(usage: DiskUsageResponse): object {
  const total = ({ count, active, bytes, reclaimableBytes }: UsageTotal) => ({
    TotalCount: count,
    Active: active,
    Size: bytes,
    Reclaimable: reclaimableBytes,
  });
  const { images, snapshots, views, buildCache } = usage;
  return {
    Totals: {
      ...(images && { Images: total(images) }),
      ...(snapshots && { UnpackedLayers: total(snapshots) }),
      ...(views && { Views: total(views) }),
      ...(buildCache && { BuildCache: total(buildCache) }),
    },
    Images: usage.imageUsages.map((one) => ({
      ID: one.image?.id,
      RepoTags: one.image?.repoTags.map(familiarName),
      Content: one.contentBytes,
      Unpacked: one.unpackedBytes,
      SharedSize: one.sharedBytes,
      UniqueSize: one.uniqueBytes,
      Views: one.views,
      InUse: one.inUse,
    })),
    Views: usage.viewUsages.map((view) => ({
      ID: view.id,
      Name: view.name,
      Image: familiarName(view.image),
      Mounted: view.mounted,
      Files: view.upperInodes,
      Size: view.upperBytes,
    })),
  };
}
