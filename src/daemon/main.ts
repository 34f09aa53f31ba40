/** `varve daemon`: runs a daemon in the foreground until it is told to stop. */

import { realpathSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import type { Logger } from "pino";
import { liveThreads } from "../snapshots/worker-host.js";
import { AlreadyExistsError, BaseError, InvalidArgumentError } from "../system/errors.js";
import { ServiceManager } from "../system/service-manager.js";
import { type ConfigFlags, type DaemonConfig, loadConfig, toFlags } from "./config.js";
import { Daemon } from "./daemon.js";
import { LockFile } from "./lock-file.js";
import { createLogger, roomLog } from "./logger.js";

/** Exit codes of `runDaemon`. */
export const EXIT = {
  stopped: 0,
  failed: 1,
  /** Bad configuration. */
  usage: 2,
  /** Another daemon has the directories; EX_TEMPFAIL of sysexits.h. The CLI's autostart knows it. */
  locked: 75,
} as const;

/**
 * How much a function does before it is compiled for speed. Threads of a daemon are short-lived, and mostly call the
 * kernel: with V8's own 67,584 up to a fifth of the CPU time goes into compiling what then hardly runs.
 */
const INTERRUPT_BUDGET = "--interrupt-budget=400000";
// Longer than any unmount takes; what is stuck then is the kernel's to clean up.
const STOP_TIMEOUT_MS = 30_000;
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
/** Another daemon is to take over. */
const HAND_OVER = "SIGUSR2";

/**
 * Runs a daemon until a signal or a client stops it. A second signal ends it at once.
 *
 * @returns the exit code; never rejects
 */
export async function runDaemon(
  flags: ConfigFlags & { readonly upgrade?: boolean | undefined },
): Promise<number> {
  let config: DaemonConfig;
  try {
    config = loadConfig(flags);
  } catch (error) {
    process.stderr.write(`varve daemon: ${(error as Error).message}\n`);
    return EXIT.usage;
  }
  const v8Flags = v8FlagsFor(process.versions.v8);
  if (v8Flags !== undefined) setFlagsFromString(v8Flags);
  const logger = createLogger(config.logLevel);
  const stop = new StopRequest(logger);
  try {
    const log = roomLog(logger);
    const onShutdownRequest = () => stop.request("a client asked for it");
    const restart = restartCommand(config);
    const patienceMs =
      flags.upgrade === true && askToHandOver(config, logger) ? STOP_TIMEOUT_MS : 0;
    const manager = ServiceManager.connect();
    const how = { config, log, restart, manager, patienceMs, onShutdownRequest };
    const daemon = await Daemon.start(how);
    manager?.ready();
    keepWatchdogQuiet(manager);
    report(logger, config, daemon);
    const { successor } = await stop.requested;
    const leavesViews = successor || (await keepsViewsOver(manager, logger));
    await bounded(daemon.stop({ successor: leavesViews }), logger);
    logger.info("stopped");
    return stop.exitCode;
  } catch (error) {
    logger.fatal({ err: error }, (error as Error).message);
    return error instanceof AlreadyExistsError ? EXIT.locked : EXIT.failed;
  }
}

/** The flags that a daemon sets; undefined for releases of V8 that do not know them (those of Node.js 22 and 24). */
export function v8FlagsFor(release: string): string | undefined {
  return release.startsWith("11.") ? INTERRUPT_BUDGET : undefined;
}

/** A daemon whose event loop stands still is killed by the service manager, and its views go to the next one. */
function keepWatchdogQuiet(manager: ServiceManager | undefined): void {
  if (manager?.watchdogMs === undefined) return;
  setInterval(() => manager.alive(), manager.watchdogMs / 2).unref();
}

/** The manager starts the next daemon at once, and gives it the views. */
async function keepsViewsOver(manager: ServiceManager | undefined, logger: Logger) {
  if (manager?.keepsDescriptors !== true || !(await manager.isRestarting())) return false;
  logger.info("the service is restarted: its views stay mounted");
  return true;
}

/** Tells the daemon at work to leave its views to this one. @returns false when there is none */
function askToHandOver({ state }: DaemonConfig, logger: Logger): boolean {
  const pid = LockFile.holder(path.join(state, "daemon.pid"));
  if (pid === undefined) return false;
  logger.info(`taking over from the daemon with process ID ${pid}`);
  process.kill(pid, HAND_OVER);
  return true;
}

/** What starts this daemon again should it die; empty where a service manager does that. */
function restartCommand(config: DaemonConfig): readonly string[] {
  // systemd's own name for the process that it started itself.
  if (process.env.SYSTEMD_EXEC_PID === String(process.pid)) return [];
  return [
    process.execPath,
    ...process.execArgv,
    fileURLToPath(import.meta.url),
    ...toFlags(config),
  ];
}

function report(logger: Logger, config: DaemonConfig, daemon: Daemon): void {
  const { root, state, socket } = config;
  const { version, fallbacks } = daemon.machine;
  logger.info(
    { version, pid: process.pid, root, state, socket },
    `varve ${version} listens on ${socket}`,
  );
  if (config.containerdSocket !== undefined) {
    logger.info(`containerd's snapshotter, on ${config.containerdSocket}`);
  }
  if (config.criSocket !== undefined) {
    logger.info(`Kubernetes' image service, on ${config.criSocket}`);
  }
  for (const fallback of fallbacks) logger.info(fallback);
}

async function bounded(stopping: Promise<void>, logger: Logger): Promise<void> {
  const timeout = new Promise<void>((resolve) => {
    setTimeout(() => {
      logger.error(`not stopped after ${STOP_TIMEOUT_MS} ms; ending anyway`);
      resolve();
    }, STOP_TIMEOUT_MS).unref();
  });
  await Promise.race([stopping, timeout]);
}

/** Signals, clients and bugs that end the daemon. */
class StopRequest {
  readonly requested: Promise<{ readonly successor: boolean }>;
  exitCode: number = EXIT.stopped;
  #resolve: (how: { successor: boolean }) => void = () => undefined;
  #isRequested = false;
  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
    this.requested = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        if (this.#isRequested) process.exit(EXIT.failed);
        this.request(signal);
      });
    }
    process.on(HAND_OVER, () => this.request("another daemon takes over", true));
    process.on("uncaughtException", (error) => this.#bug(error));
    process.on("unhandledRejection", (reason) => this.#bug(reason));
  }

  request(reason: string, successor = false): void {
    if (!this.#isRequested) this.#logger.info(`stopping: ${reason}`);
    this.#isRequested = true;
    this.#resolve({ successor });
  }

  /** State may be inconsistent after a bug: unmount what can be unmounted and end. */
  #bug(error: unknown): void {
    this.#logger.fatal(
      { err: error },
      `bug: ${error instanceof Error ? error.message : String(error)}`,
    );
    this.exitCode = EXIT.failed;
    this.request("after a bug");
  }
}

/** @throws InvalidArgumentError unknown or malformed flags */
function parseFlags(args: readonly string[]): ConfigFlags & { upgrade?: boolean | undefined } {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  try {
    const { values } = parseArgs({
      args: [...args],
      allowNegative: true,
      options: {
        config: text,
        root: text,
        state: text,
        socket: text,
        "socket-group": text,
        "log-level": text,
        "keep-mounts": flag,
        "restore-views": flag,
        io: text,
        supervise: flag,
        upgrade: flag,
        "fuse-workers": text,
        "quick-wake-ups": flag,
        "unpack-workers": text,
        "containerd-socket": text,
        "containerd-mounts": text,
        "containerd-address": text,
        "cri-socket": text,
        "health-address": text,
        "metrics-address": text,
        "max-layer-gib": text,
        "max-layer-ratio": text,
        "gc-high": text,
        "gc-low": text,
      },
    });
    const count = (given: string | undefined) => (given === undefined ? undefined : Number(given));
    return {
      config: values.config,
      root: values.root,
      state: values.state,
      socket: values.socket,
      socketGroup: values["socket-group"],
      logLevel: values["log-level"],
      keepMounts: values["keep-mounts"],
      restoreViews: values["restore-views"],
      io: values.io,
      supervise: values.supervise,
      upgrade: values.upgrade,
      fuseWorkers: count(values["fuse-workers"]),
      quickWakeUps: values["quick-wake-ups"],
      unpackWorkers: count(values["unpack-workers"]),
      containerdSocket: values["containerd-socket"],
      containerdMounts: values["containerd-mounts"],
      containerdAddress: values["containerd-address"],
      criSocket: values["cri-socket"],
      healthAddress: values["health-address"],
      metricsAddress: values["metrics-address"],
      maxLayerGib: count(values["max-layer-gib"]),
      maxLayerRatio: count(values["max-layer-ratio"]),
      gcHigh: count(values["gc-high"]),
      gcLow: count(values["gc-low"]),
    };
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message, { cause: error });
  }
}

/** Runs as a program with its own command line, and ends the process. */
async function main(args: readonly string[]): Promise<never> {
  let code: number = EXIT.usage;
  try {
    code = await runDaemon(parseFlags(args));
  } catch (error) {
    if (!(error instanceof BaseError)) throw error;
    process.stderr.write(`varve daemon: ${error.message}\n`);
  }
  end(code);
}

function end(code: number): never {
  // process.exit waits for its threads, and one that is stuck in a system call does not end.
  if (liveThreads() > 0) process.kill(process.pid, "SIGKILL");
  process.exit(code);
}

const program = process.argv[1];
if (program !== undefined && realpathSync(program) === fileURLToPath(import.meta.url)) {
  await main(process.argv.slice(2));
}
