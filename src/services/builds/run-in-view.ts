/** Running a build step's command in a mounted view, with runc. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import { bundleConfig } from "../../images/bundle-config.js";
import type { ImageConfig, JsonObject } from "../../images/manifest.js";
import { CancelledError, FailedPreconditionError } from "../../system/errors.js";
import { readInRoot } from "../use-cases/read-in-root.js";
import { notStarted } from "./child-process.js";
import { addEmpty, isInView, removeEmpty } from "./view-directory.js";

/** What to run, and where. */
export type RunInView = {
  /** Unique among what runs. */
  readonly id: string;
  /** The daemon's state directory. */
  readonly state: string;
  /** Where the view is mounted. */
  readonly root: string;
  readonly config: ImageConfig;
  readonly command: readonly string[];
  /** The step, for messages. */
  readonly what: string;
  readonly network: "host" | "none";
  /** Gets what the command writes; it writes no faster than this takes it. */
  onOutput(chunk: Buffer): Promise<void>;
  readonly signal: AbortSignal | undefined;
};

const runtimeRoot = (state: string) => path.join(state, "builds", "runc");
const bundleOf = (state: string, id: string) => path.join(state, "builds", id);

/** Files of the host without which names of hosts have no meaning. */
const NAME_FILES = ["/etc/resolv.conf", "/etc/hosts"];

/**
 * Runs the command as the image's user in its working directory, with the image's environment and
 * docker's capabilities, until all of it has ended.
 *
 * @throws FailedPreconditionError it failed (with its exit code), or runc is not installed
 * @throws CancelledError
 */
export async function runInView(o: RunInView): Promise<void> {
  const bundle = bundleOf(o.state, o.id);
  await fs.mkdir(bundle, { recursive: true, mode: 0o700 });
  try {
    const config = await runtimeConfig(o);
    const points = await makeMountPoints(o.root, config);
    await fs.writeFile(path.join(bundle, "config.json"), JSON.stringify(config));
    const code = await runContainer(o, bundle);
    if (o.signal?.aborted === true) throw new CancelledError(`build step: ${o.what}: cancelled`);
    // Only what is still empty: the command may have written there itself.
    for (const point of points.reverse()) await removeEmpty(o.root, point);
    if (code === 0) return;
    throw new FailedPreconditionError(`build step: ${o.what}: the command ended with ${code}`, {
      details: { exitCode: code },
    });
  } finally {
    await fs.rm(bundle, { recursive: true, force: true });
  }
}

/** Removes what commands of a daemon that was killed have left behind. */
export async function sweepRuns(state: string): Promise<void> {
  const names = await fs.readdir(runtimeRoot(state)).catch(() => []);
  for (const name of names) await runtime(state, ["delete", "--force", name]);
  await fs.rm(path.join(state, "builds"), { recursive: true, force: true });
}

async function runContainer(o: RunInView, bundle: string): Promise<number | string> {
  const flags = ["--root", runtimeRoot(o.state), "run", "--bundle", bundle, o.id];
  const child = spawn("runc", flags, { stdio: ["ignore", "pipe", "pipe"] });
  const kill = () => void runtime(o.state, ["kill", "--all", o.id, "KILL"]);
  const closed = once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>;
  try {
    o.signal?.addEventListener("abort", kill, { once: true });
    const forward = async (stream: AsyncIterable<Buffer>) => {
      for await (const chunk of stream) await o.onOutput(chunk);
    };
    const [[code, signal]] = await Promise.all([
      closed,
      forward(child.stdout),
      forward(child.stderr),
      // The signal may have come before there was a container to kill.
      killWhenAborted(o, closed, kill),
    ]);
    return code ?? signal ?? "";
  } catch (error) {
    throw notStarted(child, "build step", error as Error);
  } finally {
    o.signal?.removeEventListener("abort", kill);
    await runtime(o.state, ["delete", "--force", o.id]);
  }
}

const KILL_AGAIN_MS = 200;

async function killWhenAborted(
  { signal }: RunInView,
  closed: Promise<unknown>,
  kill: () => void,
): Promise<void> {
  const timer = setInterval(() => signal?.aborted === true && kill(), KILL_AGAIN_MS);
  try {
    await closed;
  } finally {
    clearInterval(timer);
  }
}

/** A call of runc whose failure says only that there is nothing to do. */
async function runtime(state: string, flags: readonly string[]): Promise<void> {
  const child = spawn("runc", ["--root", runtimeRoot(state), ...flags], { stdio: "ignore" });
  await once(child, "close").catch(() => undefined);
}

async function runtimeConfig(o: RunInView): Promise<JsonObject> {
  const { Entrypoint: _, ...settings } = o.config.config;
  const config = await bundleConfig({
    config: { ...o.config, config: { ...settings, Cmd: o.command } },
    rootPath: o.root,
    readOnly: false,
    hostname: "build",
    readFile: (file) => readInRoot(o.root, file),
  });
  if (o.network === "none") return config;
  const linux = config.linux as { namespaces: { type: string }[] };
  const namespaces = linux.namespaces.filter(({ type }) => type !== "network");
  const mounts = [...(config.mounts as JsonObject[]), ...(await nameFileMounts())];
  return { ...config, mounts, linux: { ...linux, namespaces } };
}

async function nameFileMounts(): Promise<JsonObject[]> {
  const mounts: JsonObject[] = [];
  for (const destination of NAME_FILES) {
    const source = await fs.realpath(destination).catch(() => undefined);
    if (source === undefined) continue;
    mounts.push({ destination, type: "bind", source, options: ["bind", "ro"] });
  }
  return mounts;
}

/** Makes what the runtime would make otherwise, so that it can be told from what the command does. */
async function makeMountPoints(root: string, config: JsonObject): Promise<string[]> {
  const mounts = config.mounts as { destination: string; type: string }[];
  const made: string[] = [];
  for (const { destination, type } of mounts) {
    // What lies in another mount is not in the view itself.
    if (mounts.some((other) => destination.startsWith(`${other.destination}/`))) continue;
    const parents = destination.split("/").map((_, depth, names) => names.slice(0, depth + 1));
    for (const names of parents.slice(1)) {
      const point = names.join("/");
      if (await isInView(root, point)) continue;
      await addEmpty(root, point, point !== destination || type !== "bind");
      made.push(point);
    }
  }
  return made;
}
