/** `varve info` */

import type { InfoResponse } from "../../client/index.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { formatObject } from "../list-output.js";
import { humanSize } from "../sizes.js";
import { alignColumns } from "../tables.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option("-f, --format <format>", "json, or a Go template")
    .examples([
      ["varve info", "Everything"],
      ["varve info --format '{{.Root}}'", "One field"],
      ["varve info --format json", "As JSON"],
    ])
    .action(async (flags: { format?: string }) => {
      const client = await cli.connect();
      const info = await client.info({ signal: cli.signal });
      const data = describeInfo(info);
      if (flags.format !== undefined) return cli.print(await formatObject(data, flags.format));
      for (const line of infoLines(info)) cli.print(line);
    });
}

function describeInfo(info: InfoResponse): object {
  return {
    Version: info.version,
    Pid: info.pid,
    Root: info.root,
    State: info.state,
    Socket: info.socket,
    KernelVersion: info.kernelVersion,
    FuseProtocol: info.fuseProtocol,
    Platform: info.platform,
    Decompressor: info.decompressor,
    Rootless: info.rootless,
    StorageFilesystem: info.storageFilesystem,
    Images: info.images,
    Snapshots: info.snapshots,
    Views: info.views,
    MountedViews: info.mountedViews,
    ContentBytes: info.contentBytes,
    Fallbacks: info.fallbacks,
  };
}

function infoLines(info: InfoResponse): string[] {
  const facts: [string, string][] = [
    ["Version:", info.version],
    ["Daemon PID:", info.pid.toString()],
    ["Socket:", info.socket],
    ["Root:", withRemark(info.root, info.storageFilesystem)],
    ["State:", info.state],
    ["Platform:", info.platform],
    ["Kernel:", info.kernelVersion],
    ["FUSE protocol:", info.fuseProtocol],
    ["Decompressor:", info.decompressor],
    ["Rootless:", info.rootless ? "yes" : "no"],
    ["Images:", withRemark(info.images.toString(), humanSize(info.contentBytes))],
    ["Snapshots:", info.snapshots.toString()],
    ["Views:", withRemark(info.views.toString(), `${info.mountedViews} mounted`)],
  ];
  const lines = alignColumns(facts.filter(([, value]) => value !== ""));
  if (info.fallbacks.length === 0) return lines;
  return [...lines, "", "Not available here:", ...info.fallbacks.map((text) => `  - ${text}`)];
}

function withRemark(value: string, remark: string): string {
  return remark === "" ? value : `${value} (${remark})`;
}
