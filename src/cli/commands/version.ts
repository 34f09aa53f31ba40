/** `varve version` */

import type { VersionResponse } from "../../client/index.js";
import type { VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { packageVersion } from "../installation.js";
import { formatObject } from "../list-output.js";
import { alignColumns } from "../tables.js";

// Docker's names, as in platforms of images.
const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386" };

interface VersionData {
  readonly Client: { readonly Version: string; readonly NodeVersion: string; readonly Os: string };
  readonly Server: {
    readonly Version: string;
    readonly ApiVersion: string;
    readonly NodeVersion: string;
  } | null;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .option("-f, --format <format>", "json, or a Go template")
    .examples(
      [
        ["varve version", "Both versions"],
        ["varve version --format '{{.Client.Version}}'", "Only this command's"],
      ],
      "Starts no daemon: without one, only the command's own version is shown.",
    )
    .action((flags: { format?: string }) => version(cli, flags.format));
}

async function version(cli: CliContext, format: string | undefined): Promise<void> {
  const { connectIfRunning } = await import("../connection.js");
  const { client, socket } = await connectIfRunning(cli.globals(), cli.env);
  let server: VersionResponse | undefined;
  try {
    server = await client?.version({ signal: cli.signal, timeoutMs: 5000 });
  } finally {
    client?.close();
  }
  const data = describe(server);
  if (format !== undefined) return cli.print(await formatObject(data, format));
  for (const line of versionLines(data, socket)) cli.print(line);
}

function describe(server: VersionResponse | undefined): VersionData {
  return {
    Client: {
      Version: packageVersion(),
      NodeVersion: process.versions.node,
      Os: `${process.platform}/${GO_ARCHITECTURES[process.arch] ?? process.arch}`,
    },
    Server:
      server === undefined
        ? null
        : {
            Version: server.version,
            ApiVersion: server.apiVersion,
            NodeVersion: server.nodeVersion,
          },
  };
}

function versionLines(data: VersionData, socket: string): string[] {
  const { Client: client, Server: server } = data;
  const lines = [
    "Client:",
    ...alignColumns([
      [" Version:", client.Version],
      [" Node version:", client.NodeVersion],
      [" OS/Arch:", client.Os],
    ]),
    "",
  ];
  if (server === null) return [...lines, `Daemon: not running at ${socket}`];
  return [
    ...lines,
    "Daemon:",
    ...alignColumns([
      [" Version:", server.Version],
      [" API version:", server.ApiVersion],
      [" Node version:", server.NodeVersion],
      [" Socket:", socket],
    ]),
  ];
}
