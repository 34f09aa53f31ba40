/** `varve overlay` */

import { spawn } from "node:child_process";
import { collect, type VarveCommand } from "../command.js";
import type { CliContext } from "../context.js";
import { ReportedFailure } from "../each.js";
import { installedFile } from "../installation.js";

interface OverlayFlags {
  readonly options?: readonly string[];
  readonly io?: string;
  readonly foreground?: boolean;
  readonly debug?: boolean;
}

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .argument("<target>", "The directory to mount at")
    .option("-o, --options <list>", "lowerdir=, upperdir=, workdir= and more, with commas", collect)
    .option("--io <mode>", "How file data gets to programs: cached, passthrough or auto")
    .option("-f, --foreground", "Stay until it is unmounted")
    .option("-d, --debug", "Stay, and print what goes wrong")
    .examples(
      [
        ["varve overlay -o lowerdir=a:b,upperdir=u,workdir=w mnt", "a over b, changes go to u"],
        ["varve overlay -o lowerdir=a:b mnt", "Read-only"],
        ["fusermount3 -u mnt", "Unmount it (as root: umount mnt)"],
      ],
      "Needs no daemon and no images. Takes the options of fuse-overlayfs; podman and buildah run " +
        "with mount.fuse.varve, which is the same, as their mount_program.",
    )
    .action((target: string, flags: OverlayFlags) => overlay(cli, target, flags));
}

async function overlay(cli: CliContext, target: string, flags: OverlayFlags): Promise<void> {
  const lists = [...(flags.options ?? []), ...(flags.io === undefined ? [] : [`io=${flags.io}`])];
  const options = lists.flatMap((list) => ["-o", list]);
  const stay = [...(flags.foreground ? ["-f"] : []), ...(flags.debug ? ["-d"] : [])];
  const program = installedFile("bin/mount.fuse.varve");
  const child = spawn(program, [...stay, ...options, "--", target], { stdio: "inherit" });
  // From a terminal it gets Ctrl-C by itself; a signal to this process alone has to be passed on.
  cli.signal.addEventListener("abort", () => child.kill("SIGTERM"), { once: true });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  // It has said itself what was wrong.
  if (code !== 0) throw new ReportedFailure(`${program} ended with ${code}`);
}
