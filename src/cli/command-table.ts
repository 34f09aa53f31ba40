/**
 * Every command: how it is called, what it is for, and where its definition is. A definition is
 * loaded only when its command runs, because start-up time is what one feels of a command line.
 */

import type { VarveCommand } from "./command.js";
import type { CliContext } from "./context.js";

/** A file of src/cli/commands. */
export interface CommandModule {
  /** Adds arguments, options, examples and the action. */
  define(command: VarveCommand, cli: CliContext): void;
}

/** A row of the table. */
export interface CommandEntry {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly group: string;
  readonly summary: string;
  load(): Promise<CommandModule>;
}

const IMAGES = "Images:";
const REGISTRIES = "Registries:";
const VIEWS = "Views (mounted root file systems):";
const BUILD = "Making images:";
const STORE = "The store:";
const DAEMON = "Daemon and help:";

/** All commands in the order of the help. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "pull",
    group: IMAGES,
    summary: "Fetch an image from a registry",
    load: () => import("./commands/pull.js"),
  },
  {
    name: "push",
    group: IMAGES,
    summary: "Send an image to a registry",
    load: () => import("./commands/push.js"),
  },
  {
    name: "load",
    group: IMAGES,
    summary: "Load images from an archive or a directory",
    load: () => import("./commands/load.js"),
  },
  {
    name: "save",
    group: IMAGES,
    summary: "Save images to an archive or a directory",
    load: () => import("./commands/save.js"),
  },
  {
    name: "images",
    group: IMAGES,
    summary: "List images",
    load: () => import("./commands/images.js"),
  },
  {
    name: "inspect",
    group: IMAGES,
    summary: "Show everything about images and views",
    load: () => import("./commands/inspect.js"),
  },
  {
    name: "history",
    group: IMAGES,
    summary: "Show how an image came to be",
    load: () => import("./commands/history.js"),
  },
  {
    name: "explore",
    group: IMAGES,
    summary: "Look into an image or a view with a browser, or as a tree",
    load: () => import("./commands/explore.js"),
  },
  {
    name: "tag",
    group: IMAGES,
    summary: "Give an image another name",
    load: () => import("./commands/tag.js"),
  },
  {
    name: "rmi",
    group: IMAGES,
    summary: "Remove images",
    load: () => import("./commands/rmi.js"),
  },
  {
    name: "unpack",
    group: IMAGES,
    summary: "Unpack an image's layers ahead of its first mount",
    load: () => import("./commands/unpack.js"),
  },
  {
    name: "pin",
    group: IMAGES,
    summary: "Keep images from being cleaned up",
    load: () => import("./commands/pin.js"),
  },
  {
    name: "unpin",
    group: IMAGES,
    summary: "Let pinned images be cleaned up again",
    load: () => import("./commands/unpin.js"),
  },
  {
    name: "image",
    group: IMAGES,
    summary: "The commands above by docker's longer names",
    load: () => import("./commands/image.js"),
  },
  {
    name: "login",
    group: REGISTRIES,
    summary: "Log in to a registry",
    load: () => import("./commands/login.js"),
  },
  {
    name: "logout",
    group: REGISTRIES,
    summary: "Forget the credentials of a registry",
    load: () => import("./commands/logout.js"),
  },
  {
    name: "mount",
    group: VIEWS,
    summary: "Mount an image's root file system",
    load: () => import("./commands/mount.js"),
  },
  {
    name: "views",
    aliases: ["ls"],
    group: VIEWS,
    summary: "List views",
    load: () => import("./commands/views.js"),
  },
  {
    name: "umount",
    aliases: ["unmount"],
    group: VIEWS,
    summary: "Unmount views; what was written in them stays",
    load: () => import("./commands/umount.js"),
  },
  {
    name: "rm",
    group: VIEWS,
    summary: "Remove views and what was written in them",
    load: () => import("./commands/rm.js"),
  },
  {
    name: "overlay",
    group: VIEWS,
    summary: "Mount plain directories over each other, without a daemon",
    load: () => import("./commands/overlay.js"),
  },
  {
    name: "diff",
    group: BUILD,
    summary: "Show what changed in a view",
    load: () => import("./commands/diff.js"),
  },
  {
    name: "commit",
    group: BUILD,
    summary: "Make an image of a view",
    load: () => import("./commands/commit.js"),
  },
  {
    name: "build-step",
    group: BUILD,
    summary: "Make an image by running and copying into another",
    load: () => import("./commands/build-step.js"),
  },
  {
    name: "bundle",
    group: BUILD,
    summary: "Write an OCI runtime bundle of a view",
    load: () => import("./commands/bundle.js"),
  },
  {
    name: "df",
    group: STORE,
    summary: "Show what takes how much of the disk",
    load: () => import("./commands/df.js"),
  },
  {
    name: "prune",
    group: STORE,
    summary: "Remove images that nothing uses",
    load: () => import("./commands/prune.js"),
  },
  {
    name: "check",
    group: STORE,
    summary: "Find what is damaged or lost in the store, and repair it",
    load: () => import("./commands/check.js"),
  },
  {
    name: "lease",
    group: STORE,
    summary: "Keep content from garbage collection for a time",
    load: () => import("./commands/lease.js"),
  },
  {
    name: "events",
    group: STORE,
    summary: "Show what happens, as it happens",
    load: () => import("./commands/events.js"),
  },
  {
    name: "daemon",
    group: DAEMON,
    summary: "Run the daemon in the foreground, or stop it",
    load: () => import("./commands/daemon.js"),
  },
  {
    name: "info",
    group: DAEMON,
    summary: "Show paths, counts and what this machine lacks",
    load: () => import("./commands/info.js"),
  },
  {
    name: "doctor",
    group: DAEMON,
    summary: "Check what this machine lacks, and how to get it",
    load: () => import("./commands/doctor.js"),
  },
  {
    name: "top",
    group: DAEMON,
    summary: "Show what mounted views are doing",
    load: () => import("./commands/top.js"),
  },
  {
    name: "metrics",
    group: DAEMON,
    summary: "Print what the daemon counts, for Prometheus",
    load: () => import("./commands/metrics.js"),
  },
  {
    name: "debug",
    group: DAEMON,
    summary: "Gather what a report of a fault needs",
    load: () => import("./commands/debug.js"),
  },
  {
    name: "version",
    group: DAEMON,
    summary: "Show the versions of command and daemon",
    load: () => import("./commands/version.js"),
  },
  {
    name: "completion",
    group: DAEMON,
    summary: "Print a completion script for bash, zsh or fish",
    load: () => import("./commands/completion.js"),
  },
  {
    name: "help",
    group: DAEMON,
    summary: "Show the help of a command",
    load: () => import("./commands/help.js"),
  },
];

/** Loads a command's definition from its file into `command`. */
export async function defineCommand(
  name: string,
  command: VarveCommand,
  cli: CliContext,
): Promise<void> {
  const entry = COMMANDS.find((candidate) => candidate.name === name);
  (await entry?.load())?.define(command, cli);
}
