/**
 * The daemon's configuration: flags, then environment variables, then a TOML file, then defaults.
 *
 * One table (SETTINGS) names every setting in its three spellings, so that none can be forgotten in
 * one of them.
 */

import { readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parse as parseToml, TomlError } from "smol-toml";
import * as v from "valibot";
import type { LayerLimits } from "../layers/limits.js";
import type { IoMode } from "../metadata/view-table.js";
import { InvalidArgumentError, NotFoundError } from "../system/errors.js";
import { nearestWord } from "../system/nearest-word.js";
import type { MountForm } from "../views/proxy-mount-forms.js";
import {
  defaultConfigPath,
  defaultRoot,
  defaultState,
  type Environment,
  socketIn,
} from "./default-paths.js";

/** Everything that can be configured. Paths are absolute. */
export interface DaemonConfig {
  /** Images, snapshots and what was written in views; must be on a disk. */
  readonly root: string;
  /** The socket, the pid file and default mount targets; may be on tmpfs. */
  readonly state: string;
  /** Path of the gRPC socket. */
  readonly socket: string;
  /** Name or ID of the group whose members may use the socket, too; undefined: nobody else. */
  readonly socketGroup: string | undefined;
  /** trace | debug | info | warn | error | fatal | silent */
  readonly logLevel: string;
  /** On shutdown leave mounts in place (dead until the next daemon mounts them again). */
  readonly keepMounts: boolean;
  /** At start mount again what was mounted when the last daemon ended. */
  readonly restoreViews: boolean;
  /** The I/O mode of views for which none was asked; see views/io-mode.ts. */
  readonly io: IoMode;
  /** Views live on while the daemon is dead, and it is started again. */
  readonly supervise: boolean;
  /** Worker threads that serve FUSE mounts. */
  readonly fuseWorkers: number;
  /** Keep CPUs from sleeping deeply while requests come in bursts: several times as fast, for some power. */
  readonly quickWakeUps: boolean;
  /** Worker threads that unpack layers, hence layers unpacked side by side. */
  readonly unpackWorkers: number;
  /** Path of the socket for a containerd, whose snapshotter this daemon is then; absent: none. */
  readonly containerdSocket: string | undefined;
  /** What containers of containerd get: fuse (a view of ours) or overlay (the kernel's overlayfs). */
  readonly containerdMounts: MountForm;
  /** Path of that containerd's own socket: its content and images; absent: varve calls no containerd. */
  readonly containerdAddress: string | undefined;
  /** Path of the socket for kubelets, whose image service this daemon is then; absent: none. */
  readonly criSocket: string | undefined;
  /** "HOST:PORT" for health checks from outside; absent: the sockets alone answer them. */
  readonly healthAddress: string | undefined;
  /** "HOST:PORT" for Prometheus; absent: only the socket tells the metrics. */
  readonly metricsAddress: string | undefined;
  /** A layer that unpacks to more GiB is refused; undefined: the default (see layers/limits.ts). */
  readonly maxLayerGib: number | undefined;
  /** So is one that unpacks to more than this many times its size, once that is beyond 1 GiB. */
  readonly maxLayerRatio: number | undefined;
  /**
   * When the root's disk is fuller than this, in percent, images that nothing uses are removed;
   * undefined: never.
   */
  readonly gcHigh: number | undefined;
  /** … until it is not fuller than this. Undefined: 5 below `gcHigh`. */
  readonly gcLow: number | undefined;
}

/** Command-line flags, as given; undefined ones were not. */
export interface ConfigFlags {
  /** Path of the TOML file; naming it makes its absence an error. */
  readonly config?: string | undefined;
  readonly root?: string | undefined;
  readonly state?: string | undefined;
  readonly socket?: string | undefined;
  readonly socketGroup?: string | undefined;
  readonly logLevel?: string | undefined;
  readonly keepMounts?: boolean | undefined;
  readonly restoreViews?: boolean | undefined;
  readonly io?: string | undefined;
  readonly supervise?: boolean | undefined;
  readonly fuseWorkers?: number | undefined;
  readonly quickWakeUps?: boolean | undefined;
  readonly unpackWorkers?: number | undefined;
  readonly containerdSocket?: string | undefined;
  readonly containerdMounts?: string | undefined;
  readonly containerdAddress?: string | undefined;
  readonly criSocket?: string | undefined;
  readonly healthAddress?: string | undefined;
  readonly metricsAddress?: string | undefined;
  readonly maxLayerGib?: number | undefined;
  readonly maxLayerRatio?: number | undefined;
  readonly gcHigh?: number | undefined;
  readonly gcLow?: number | undefined;
}

const IO_MODES: readonly IoMode[] = ["cached", "passthrough", "auto"];
const MOUNT_FORMS: readonly MountForm[] = ["fuse", "overlay"];
const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
// More threads than this only cost memory: each holds a V8 heap.
const MAX_WORKERS = 64;

const text = v.pipe(v.string(), v.nonEmpty("must not be empty"));
const workers = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_WORKERS));
// An exbibyte: numbers stay exact, and nothing is as large.
const MAX_LIMIT = 2 ** 30;
const limit = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_LIMIT));
const percent = v.pipe(
  v.number(),
  v.integer(),
  v.minValue(1),
  v.maxValue(99, "must be a percentage from 1 to 99"),
);
const ADDRESS = /^(?:\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):[0-9]{1,5}$/;
const SETTINGS = {
  root: text,
  state: text,
  socket: text,
  socketGroup: text,
  logLevel: v.picklist(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(", ")}`),
  keepMounts: v.boolean("must be true or false"),
  restoreViews: v.boolean("must be true or false"),
  io: v.picklist(IO_MODES, `must be one of ${IO_MODES.join(", ")}`),
  supervise: v.boolean("must be true or false"),
  fuseWorkers: workers,
  quickWakeUps: v.boolean("must be true or false"),
  unpackWorkers: workers,
  containerdSocket: text,
  containerdMounts: v.picklist(MOUNT_FORMS, `must be one of ${MOUNT_FORMS.join(", ")}`),
  containerdAddress: text,
  criSocket: text,
  healthAddress: v.pipe(v.string(), v.regex(ADDRESS, "want HOST:PORT, as in 127.0.0.1:7878")),
  metricsAddress: v.pipe(v.string(), v.regex(ADDRESS, "want HOST:PORT, as in 127.0.0.1:7879")),
  maxLayerGib: limit,
  maxLayerRatio: limit,
  gcHigh: percent,
  gcLow: percent,
} as const;

type Key = keyof typeof SETTINGS;
type Values = { -readonly [K in Key]?: DaemonConfig[K] };
const KEYS = Object.keys(SETTINGS) as Key[];

/** logLevel → log_level, gcHigh → gc.high (of a table): the spelling in the TOML file. */
function fileKey(key: Key): string {
  const spelt = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return spelt.replace(/^gc_/, "gc.");
}

/** logLevel → VARVE_LOG_LEVEL. */
function variableName(key: Key): string {
  return `VARVE_${fileKey(key).replace(".", "_").toUpperCase()}`;
}

/**
 * The configuration in force.
 *
 * @throws InvalidArgumentError an unknown key or a bad value, naming where it stands
 * @throws NotFoundError the file that `--config` or VARVE_CONFIG names is missing
 */
export function loadConfig(
  flags: ConfigFlags,
  environment: Environment = process.env,
): DaemonConfig {
  const named = flags.config ?? (environment.VARVE_CONFIG || undefined);
  const merged: Values = {
    ...readConfigFile(named ?? defaultConfigPath(environment), named !== undefined),
    ...fromEnvironment(environment),
    ...fromFlags(flags),
  };
  return complete(merged, environment);
}

/** The flags that give another daemon the same configuration. */
export function toFlags(config: DaemonConfig): string[] {
  return KEYS.flatMap((key) => {
    const value = config[key];
    if (value === undefined) return [];
    if (typeof value === "boolean") return [`--${value ? "" : "no-"}${dashed(key)}`];
    return [`--${dashed(key)}=${value}`];
  });
}

function fromFlags(flags: ConfigFlags): Values {
  const given: Record<string, unknown> = {};
  for (const key of KEYS) {
    if (flags[key] !== undefined) given[key] = check(key, flags[key], `--${dashed(key)}`);
  }
  return given as Values;
}

function dashed(key: Key): string {
  return fileKey(key).replaceAll(/[_.]/g, "-");
}

function fromEnvironment(environment: Environment): Values {
  const given: Record<string, unknown> = {};
  for (const key of KEYS) {
    const name = variableName(key);
    const value = environment[name];
    // An empty variable is how shells and unit files unset one.
    if (value === undefined || value === "") continue;
    given[key] = check(key, fromText(key, value), `environment variable ${name}`);
  }
  return given as Values;
}

/** The typed value of a variable's text; what does not parse is left for the schema to refuse. */
function fromText(key: Key, value: string): unknown {
  const schema = SETTINGS[key];
  if (schema === workers || schema === limit || schema === percent)
    return /^[0-9]+$/.test(value) ? Number(value) : value;
  if (
    key === "keepMounts" ||
    key === "restoreViews" ||
    key === "quickWakeUps" ||
    key === "supervise"
  ) {
    if (/^(1|true|yes|on)$/i.test(value)) return true;
    if (/^(0|false|no|off)$/i.test(value)) return false;
  }
  return value;
}

function check(key: Key, value: unknown, where: string): unknown {
  const result = v.safeParse(SETTINGS[key], value);
  if (result.success) return result.output;
  throw new InvalidArgumentError(
    `configuration: ${where} = ${JSON.stringify(value)}: ${result.issues[0].message}`,
  );
}

/** The settings of a TOML file; none when it is missing and nobody asked for it by name. */
function readConfigFile(file: string, isRequired: boolean): Values {
  let source: string;
  try {
    source = readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      if (!isRequired) return {};
      throw new NotFoundError(`configuration file ${file}: no such file`, { cause: error });
    }
    throw new InvalidArgumentError(
      `configuration file ${file}: cannot be read: ${(error as Error).message}`,
      { cause: error },
    );
  }
  return checkTable(parseTable(file, source), file);
}

function parseTable(file: string, source: string): Record<string, unknown> {
  try {
    return parseToml(source);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new InvalidArgumentError(
      `configuration file ${file}, line ${error.line}: ${error.message.split("\n")[0]}`,
      { cause: error },
    );
  }
}

function checkTable(table: Record<string, unknown>, file: string): Values {
  const keys = new Map(KEYS.map((key) => [fileKey(key), key]));
  const given: Record<string, unknown> = {};
  for (const [name, value] of flatEntries(table)) {
    const key = keys.get(name);
    if (key === undefined) throw unknownKey(file, name, [...keys.keys()]);
    given[key] = check(key, value, `${file}: ${name}`);
  }
  return given as Values;
}

/** `[gc]` with `high = 85` is `gc.high = 85`. */
function flatEntries(table: Record<string, unknown>): [string, unknown][] {
  return Object.entries(table).flatMap(([name, value]): [string, unknown][] => {
    const isTable = typeof value === "object" && value !== null && !Array.isArray(value);
    if (!isTable || name !== "gc") return [[name, value]];
    return Object.entries(value).map(([inner, setting]) => [`${name}.${inner}`, setting]);
  });
}

function unknownKey(file: string, name: string, known: string[]): InvalidArgumentError {
  const nearest = nearestWord(name, known);
  const hint =
    nearest === undefined ? `known keys: ${known.join(", ")}` : `did you mean "${nearest}"?`;
  return new InvalidArgumentError(`configuration file ${file}: unknown key "${name}"; ${hint}`);
}

function complete(given: Values, environment: Environment): DaemonConfig {
  if (given.containerdAddress !== undefined && given.containerdSocket === undefined) {
    throw new InvalidArgumentError(
      "configuration: containerd_address without containerd_socket: varve calls only a containerd whose snapshotter it is",
    );
  }
  const state = path.resolve(given.state ?? defaultState(environment));
  const cpus = os.availableParallelism();
  return {
    root: path.resolve(given.root ?? defaultRoot(environment)),
    state,
    socket: path.resolve(given.socket ?? socketIn(state)),
    socketGroup: given.socketGroup,
    logLevel: given.logLevel ?? "info",
    keepMounts: given.keepMounts ?? false,
    restoreViews: given.restoreViews ?? true,
    io: given.io ?? "auto",
    supervise: given.supervise ?? true,
    // A request's wake-up is the cost, not its work: one thread serves two cores' worth of clients.
    fuseWorkers: given.fuseWorkers ?? Math.max(1, Math.floor(cpus / 2)),
    quickWakeUps: given.quickWakeUps ?? true,
    // Beyond four the disk is the limit.
    unpackWorkers: given.unpackWorkers ?? Math.min(cpus, 4),
    containerdSocket: resolved(given.containerdSocket),
    containerdAddress: resolved(given.containerdAddress),
    containerdMounts: given.containerdMounts ?? "fuse",
    criSocket: resolved(given.criSocket),
    healthAddress: given.healthAddress,
    metricsAddress: given.metricsAddress,
    maxLayerGib: given.maxLayerGib,
    maxLayerRatio: given.maxLayerRatio,
    ...thresholds(given),
  };
}

function thresholds({ gcHigh, gcLow }: Values): Pick<DaemonConfig, "gcHigh" | "gcLow"> {
  if (gcLow !== undefined && (gcHigh === undefined || gcLow > gcHigh)) {
    throw new InvalidArgumentError(
      `configuration: gc.low = ${gcLow}: want it beside a gc.high, and not above it`,
    );
  }
  return { gcHigh, gcLow };
}

function resolved(given: string | undefined): string | undefined {
  return given === undefined ? undefined : path.resolve(given);
}

/** The bounds on layers that are configured. */
export function layerLimits({ maxLayerGib, maxLayerRatio }: DaemonConfig): Partial<LayerLimits> {
  return {
    ...(maxLayerGib === undefined ? {} : { tarBytes: maxLayerGib * 1024 ** 3 }),
    ...(maxLayerRatio === undefined ? {} : { ratio: maxLayerRatio }),
  };
}
