/**
 * The service manager that started this process, if it speaks systemd's protocol: it is told when the
 * service is ready, and keeps descriptors for the process that it starts next.
 *
 * @see sd_notify(3), sd_listen_fds(3), "File Descriptor Store" of systemd's documentation
 */

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { sys } from "./addon.js";
import { toBytes } from "./bytes.js";
import { must } from "./errno.js";

/** SD_LISTEN_FDS_START */
const FIRST_DESCRIPTOR = 3;
/** What concerns one process alone, and none that it starts. */
const VARIABLES = [
  "NOTIFY_SOCKET",
  "FDSTORE",
  "LISTEN_PID",
  "LISTEN_FDS",
  "LISTEN_FDNAMES",
  "WATCHDOG_PID",
  "WATCHDOG_USEC",
];

/** An answer takes a few milliseconds; the service has been told to stop meanwhile. */
const ANSWER_TIMEOUT_MS = 2_000;

/** See the file comment. */
export class ServiceManager {
  /** It keeps descriptors (the unit's FileDescriptorStoreMax=). */
  readonly keepsDescriptors: boolean;
  /** It wants to hear of this process so often (the unit's WatchdogSec=), in ms; undefined: never. */
  readonly watchdogMs: number | undefined;
  readonly #kept: Map<string, number>;
  /** -1: nobody is to be told anything. */
  readonly #socket: number;

  private constructor(o: {
    socket: number;
    keepsDescriptors: boolean;
    kept: Map<string, number>;
    watchdogMs: number | undefined;
  }) {
    this.#socket = o.socket;
    this.keepsDescriptors = o.keepsDescriptors;
    this.#kept = o.kept;
    this.watchdogMs = o.watchdogMs;
  }

  /** What it kept, or gave, by name; the descriptors are the caller's. */
  get kept(): ReadonlyMap<string, number> {
    return this.#kept;
  }

  /** Takes one of those; undefined where there is none of that name. */
  take(name: string): number | undefined {
    const descriptor = this.#kept.get(name);
    this.#kept.delete(name);
    return descriptor;
  }

  /**
   * Undefined when nobody who speaks the protocol started this very process: programs of a service
   * inherit the variables, and are not heard. Takes what concerns it out of `environment`, so that no
   * other process takes it for its own. Call once.
   *
   * @throws SyscallError the manager's socket cannot be reached
   */
  static connect(environment: NodeJS.ProcessEnv = process.env): ServiceManager | undefined {
    const { NOTIFY_SOCKET: path, FDSTORE: room } = environment;
    // Since systemd 248.
    if (environment.SYSTEMD_EXEC_PID !== String(process.pid)) return undefined;
    const kept = takeDescriptors(environment);
    const watchdogMs = watchdogOf(environment);
    for (const name of VARIABLES) delete environment[name];
    const hasSocket = path !== undefined && path !== "";
    if (!hasSocket && kept.size === 0) return undefined;
    const socket = hasSocket ? must(sys.connectDatagrams(toBytes(path)), "connect", path) : -1;
    const keepsDescriptors = hasSocket && Number(room) > 0;
    return new ServiceManager({ socket, keepsDescriptors, kept, watchdogMs });
  }

  /** The service does what it is for. @throws SyscallError */
  ready(): void {
    this.#send("READY=1");
  }

  /** The process still does its work; to be said at least every `watchdogMs`. @throws SyscallError */
  alive(): void {
    this.#send("WATCHDOG=1");
  }

  /**
   * Keeps a descriptor; the caller still owns its own.
   *
   * @param name without colons
   * @throws SyscallError
   */
  keep(name: string, descriptor: number): void {
    // Not polled: each request of a FUSE connection would wake the manager.
    this.#send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, descriptor);
  }

  /** Closes what it keeps under this name. @throws SyscallError */
  drop(name: string): void {
    this.#send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /**
   * Whether it ends this process to start the service again (`systemctl restart`); to be asked once it has told the
   * process to end. False where it does not say.
   */
  async isRestarting(): Promise<boolean> {
    try {
      const unit = unitOf(await readFile("/proc/self/cgroup", "utf8"));
      if (unit === undefined) return false;
      const list = ["list-jobs", "--no-legend", "--plain", unit.name];
      const { stdout } = await promisify(execFile)(
        "systemctl",
        unit.isOfUser ? ["--user", ...list] : list,
        { timeout: ANSWER_TIMEOUT_MS },
      );
      return isRestartJob(stdout);
    } catch {
      return false;
    }
  }

  #send(message: string, descriptor = -1): void {
    if (this.#socket < 0) return;
    must(sys.sendPacket(this.#socket, Buffer.from(message), descriptor), "sendmsg", message);
  }
}

/**
 * The service that a process belongs to.
 *
 * @param cgroups /proc/PID/cgroup, see cgroups(7)
 */
export function unitOf(
  cgroups: string,
): { readonly name: string; readonly isOfUser: boolean } | undefined {
  // systemd's own hierarchy: the unified one, or, beside version 1, the one of its name.
  const own = /^(?:0::|\d+:name=systemd:)(\/.+)$/m.exec(cgroups)?.[1] ?? "";
  const name = own.split("/").findLast((part) => part.endsWith(".service"));
  return name === undefined ? undefined : { name, isOfUser: /\/user@\d+\.service\/./.test(own) };
}

/** @param jobs what `systemctl list-jobs --no-legend` prints of one unit: number, unit, type, state */
export function isRestartJob(jobs: string): boolean {
  return jobs.trim().split(/\s+/)[2] === "restart";
}

function takeDescriptors(environment: NodeJS.ProcessEnv): Map<string, number> {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names = "" } = environment;
  const taken = new Map<string, number>();
  if (Number(pid) !== process.pid) return taken;
  for (const [position, name] of names.split(":").slice(0, Number(count)).entries()) {
    const inherited = FIRST_DESCRIPTOR + position;
    // One that programs which are started from here do not get.
    const own = sys.duplicate(inherited);
    sys.close(inherited);
    if (own >= 0) taken.set(name, own);
  }
  return taken;
}

function watchdogOf({ WATCHDOG_USEC: period, WATCHDOG_PID: pid }: NodeJS.ProcessEnv) {
  const isMeant = pid === undefined || Number(pid) === process.pid;
  return isMeant && Number(period) > 0 ? Number(period) / 1000 : undefined;
}
