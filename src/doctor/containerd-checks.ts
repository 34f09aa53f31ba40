/**
 * Whether containerd and varve know of each other. Reads containerd's main configuration file; files
 * that it imports are not followed.
 *
 * @see containerd's docs/PLUGINS.md, "Proxy Plugins"
 */

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { parse as parseToml } from "smol-toml";
import { isListening } from "../client/autostart.js";
import { findProgram } from "../system/programs.js";
import { type Finding, finding, type Verdict } from "./finding.js";
import { type Surroundings, textOf } from "./surroundings.js";

const AREA = "containerd";
const GUIDE = "docs/containerd.md";

type Table = Readonly<Record<string, unknown>>;

/** A proxy plugin of the configuration. */
interface Plugin {
  readonly name: string;
  readonly type: unknown;
  readonly address: unknown;
}

/** All of them. */
export async function checkContainerd(surroundings: Surroundings): Promise<Finding[]> {
  const program = findProgram("containerd");
  const file = join(surroundings.etc, "containerd/config.toml");
  const source = textOf(file);
  if (program === undefined && source === undefined) {
    return [note("containerd", "not installed; nothing to do")];
  }
  const version = program === undefined ? undefined : versionOf(program);
  const found = [
    note("containerd", version ?? (program === undefined ? `only ${file}` : "unknown version")),
  ];
  let table: Table;
  try {
    table = parseToml(source ?? "");
  } catch (error) {
    const reason = (error as Error).message.split("\n")[0]!;
    const found = `${file}: ${reason}`;
    const cost = "containerd does not start";
    return [finding(AREA, "configuration", { status: "limited", found, cost })];
  }
  const plugins = proxyPlugins(table);
  found.push(finding(AREA, "snapshotter", await snapshotter(plugins, file, surroundings)));
  if (plugins.some(isSnapshotter)) {
    found.push(finding(AREA, "differ", differ(plugins, version, surroundings)));
  }
  return found;
}

function note(name: string, found: string): Finding {
  return finding(AREA, name, { status: "note", found });
}

/** "1.6.20~ds1" of "containerd github.com/containerd/containerd 1.6.20~ds1 …". */
function versionOf(program: string): string | undefined {
  try {
    return execFileSync(program, ["--version"], { encoding: "utf8", timeout: 5000 }).match(
      /\bv?(\d+\.\d+\S*)/,
    )?.[1];
  } catch {
    return undefined;
  }
}

function isTable(value: unknown): value is Table {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function proxyPlugins(table: Table): Plugin[] {
  const plugins = isTable(table.proxy_plugins) ? table.proxy_plugins : {};
  return Object.entries(plugins)
    .filter((entry): entry is [string, Table] => isTable(entry[1]))
    .map(([name, { type, address }]) => ({ name, type, address }))
    .filter(({ name, address }) => name.startsWith("varve") || String(address).includes("varve"));
}

const isSnapshotter = ({ type }: Plugin) => type === "snapshot";

async function snapshotter(
  plugins: readonly Plugin[],
  file: string,
  { config }: Surroundings,
): Promise<Verdict> {
  const plugin = plugins.find(isSnapshotter);
  const ours = config.containerdSocket;
  if (plugin === undefined) return withoutPlugin(file, ours);
  const address = String(plugin.address);
  const cost = `containers and images with snapshotter "${plugin.name}" fail`;
  if (ours !== undefined && ours !== address) {
    const found = `${file} looks at ${address}, the daemon is configured for ${ours}`;
    return { status: "limited", found, cost, remedy: `make both the same; ${GUIDE}` };
  }
  if (await isListening(address)) return { status: "ok", found: `"${plugin.name}" at ${address}` };
  return {
    status: "limited",
    found: `nobody answers at ${address}`,
    cost,
    remedy: `varve daemon --containerd-socket ${address}, before containerd starts`,
  };
}

function withoutPlugin(file: string, socket: string | undefined): Verdict {
  if (socket === undefined) {
    const found = `varve is not its snapshotter; how to make it one: ${GUIDE}`;
    return { status: "note", found };
  }
  return {
    status: "limited",
    found: `the daemon is configured for ${socket}, ${file} does not name it`,
    cost: "containerd uses another snapshotter",
    remedy: `[proxy_plugins.varve] with type "snapshot" and address "${socket}"; ${GUIDE}`,
  };
}

/** @param version of containerd, where it is known */
export function differ(
  plugins: readonly Plugin[],
  version: string | undefined,
  { config }: Pick<Surroundings, "config">,
): Verdict {
  const plugin = plugins.find(({ type }) => type === "diff");
  const cost =
    "images are unpacked and containers committed by containerd's own code, which takes longer";
  if (plugin !== undefined && config.containerdAddress === undefined) {
    return {
      status: "limited",
      found: "the daemon does not know containerd's socket, where the blobs are",
      cost: "unpacking with the differ fails",
      remedy: "varve daemon --containerd-address /run/containerd/containerd.sock",
    };
  }
  if (plugin !== undefined) return { status: "ok", found: `"${plugin.name}"` };
  if (version?.startsWith("1.6") === true) {
    return { status: "note", found: "containerd 1.6 takes none from outside", cost };
  }
  return { status: "limited", found: "not set up", cost, remedy: GUIDE };
}
