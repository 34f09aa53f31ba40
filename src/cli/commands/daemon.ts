/** `varve daemon` and `varve daemon stop` */

import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { InvalidArgumentError, Option } from "commander";
import { daemonEntry, isListening } from "../../client/autostart.js";
import { UnavailableError } from "../../system/errors.js";
import type { VarveCommand } from "../command.js";
import { connectIfRunning, notRunning } from "../connection.js";
import type { CliContext, GlobalOptions } from "../context.js";

interface DaemonFlags {
  readonly logLevel?: string;
  readonly keepMounts?: boolean;
  readonly restoreViews?: boolean;
  readonly io?: string;
  readonly supervise?: boolean;
  readonly upgrade?: boolean;
  readonly fuseWorkers?: number;
  readonly quickWakeUps?: boolean;
  readonly unpackWorkers?: number;
  readonly containerdSocket?: string;
  readonly containerdMounts?: string;
  readonly containerdAddress?: string;
  readonly socketGroup?: string;
  readonly criSocket?: string;
  readonly healthAddress?: string;
  readonly metricsAddress?: string;
  readonly maxLayerGib?: number;
  readonly maxLayerRatio?: number;
  readonly gcHigh?: number;
  readonly gcLow?: number;
}

/** What dist/daemon/bundle/main.mjs exports; found by its path, since no bundle may hold it. */
interface DaemonModule {
  /** Runs until it is stopped; returns the exit code. */
  runDaemon(
    flags: Partial<Record<keyof GlobalOptions | keyof DaemonFlags, unknown>>,
  ): Promise<number>;
}

const MOUNT_FORMS = ["fuse", "overlay"];
const IO_MODES = ["cached", "passthrough", "auto"];
const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"];

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .usage("[options] [stop]")
    .helpCommand(false)
    .addOption(new Option("--log-level <level>", "What to log (default: info)").choices(LOG_LEVELS))
    .option("--keep-mounts", "Leave mounts in place when the daemon ends")
    .option("--no-restore-views", "Do not mount again what was mounted when the last one ended")
    .addOption(
      new Option(
        "--io <mode>",
        "How file data is read where mount has no --io (default: auto)",
      ).choices(IO_MODES),
    )
    .option("--no-supervise", "Let views end when the daemon dies, and do not start it again")
    .option(
      "--upgrade",
      "Take over from the daemon that runs; programs in its views notice a pause",
    )
    .option(
      "--socket-group <name>",
      "Let this group's members use the socket, with their own rights",
    )
    .option("--fuse-workers <count>", "Threads that serve mounts", countOf)
    .option("--no-quick-wake-ups", "Let CPUs sleep deeply while requests come in bursts: slower")
    .option("--unpack-workers <count>", "Layers unpacked side by side", countOf)
    .option("--containerd-socket <path>", "Also be the snapshotter of a containerd, on this socket")
    .addOption(
      new Option("--containerd-mounts <form>", "What its containers get (default: fuse)").choices(
        MOUNT_FORMS,
      ),
    )
    .option(
      "--containerd-address <path>",
      "Its own socket, to unpack and diff for it and to hand it images",
    )
    .option("--cri-socket <path>", "Also be the image service of a kubelet, on this socket")
    .option("--health-address <host:port>", "Answer gRPC health checks here, too")
    .option(
      "--metrics-address <host:port>",
      "Serve Prometheus metrics here, too: http://HOST:PORT/metrics",
    )
    .option("--max-layer-gib <count>", "Refuse layers that unpack to more (default: 1024)", countOf)
    .option(
      "--max-layer-ratio <count>",
      "… or to so many times their size (default: 1000)",
      countOf,
    )
    .option("--gc-high <percent>", "Remove unused images when the disk is fuller", countOf)
    .option("--gc-low <percent>", "… until it is not fuller than this", countOf)
    .examples(
      [
        ["varve daemon", "Run in the foreground with logs on standard error; Ctrl-C ends it"],
        ["varve --root /data/varve daemon", "Keep everything in another directory"],
        ["varve --root a --state b daemon", "A private daemon beside the usual one"],
        [
          "varve daemon --containerd-socket /run/varve/containerd.sock",
          "Be a snapshotter for containerd; see docs/containerd.md",
        ],
        ["varve daemon --gc-high 85 --gc-low 80", "Keep the disk from filling up"],
        ["varve daemon --upgrade", "Replace the daemon, by a new version of varve perhaps"],
        ["varve daemon stop", "End the daemon, and wait until it is gone"],
      ],
      "Other commands start a daemon by themselves when none runs. Settings may also stand in the " +
        "configuration file or in environment variables (--log-level: log_level, VARVE_LOG_LEVEL; --gc-high: gc.high, VARVE_GC_HIGH).",
    )
    .action((flags: DaemonFlags) => runDaemon(cli.globals(), flags));
  const stop = command.command("stop") as VarveCommand;
  stop
    .summary("End the daemon, and wait until it is gone")
    .description("End the daemon, and wait until it is gone.")
    .option("-t, --timeout <seconds>", "How long to wait", countOf, 30)
    .examples([
      ["varve daemon stop", "Unmounts all views; what was written in them stays"],
      ["varve --socket /run/other.sock daemon stop", "Another daemon than the usual one"],
    ])
    .action((flags: { timeout: number }) => stopDaemon(cli, flags.timeout));
}

function countOf(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError("want a whole number from 1");
  return Number(text);
}

/** The daemon takes over this process: its signals, its output and its exit code. */
async function runDaemon(globals: GlobalOptions, flags: DaemonFlags): Promise<never> {
  const entry = pathToFileURL(daemonEntry()).href;
  const daemon = (await import(entry)) as DaemonModule;
  process.removeAllListeners("SIGINT").removeAllListeners("SIGTERM");
  process.stdout.removeAllListeners("error");
  const { root, state, socket, config } = globals;
  const { containerdSocket, containerdMounts, containerdAddress } = flags;
  const { criSocket, healthAddress, metricsAddress, gcHigh, gcLow, io } = flags;
  const { logLevel, keepMounts, fuseWorkers, unpackWorkers, maxLayerGib, maxLayerRatio } = flags;
  const code = await daemon.runDaemon({
    root,
    state,
    socket,
    socketGroup: flags.socketGroup,
    config,
    logLevel,
    keepMounts,
    // Commander's default of a --no- option is true: only what was typed counts.
    restoreViews: flags.restoreViews === false ? false : undefined,
    io,
    supervise: flags.supervise === false ? false : undefined,
    upgrade: flags.upgrade,
    fuseWorkers,
    quickWakeUps: flags.quickWakeUps === false ? false : undefined,
    unpackWorkers,
    containerdSocket,
    containerdMounts,
    containerdAddress,
    criSocket,
    healthAddress,
    metricsAddress,
    maxLayerGib,
    maxLayerRatio,
    gcHigh,
    gcLow,
  });
  process.exit(code);
}

async function stopDaemon(cli: CliContext, timeoutSeconds: number): Promise<void> {
  const { client, socket } = await connectIfRunning(cli.globals(), cli.env);
  if (client === undefined) throw notRunning(socket, "nothing to stop");
  let pid: number | undefined;
  try {
    pid = Number((await client.info({ signal: cli.signal })).pid);
    await client.shutdown({ signal: cli.signal });
  } catch (error) {
    // Gone before its answer was on the way (seen with Node 24): what counts is that it goes.
    if (pid === undefined || !(error instanceof UnavailableError)) throw error;
  } finally {
    client.close();
  }
  const deadline = Date.now() + timeoutSeconds * 1000;
  while (Date.now() < deadline) {
    if (!isAlive(pid) && !(await isListening(socket))) return;
    await sleep(20, undefined, { signal: cli.signal });
  }
  throw new UnavailableError(
    `stop the daemon at ${path.resolve(socket)}: process ${pid} still runs after ${timeoutSeconds} s`,
  );
}

/** False once the process is gone (or a zombie that its parent has not collected). */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
