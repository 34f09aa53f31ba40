/** `varve completion` */

import { Argument } from "commander";
import type { VarveCommand } from "../command.js";
import { completionScript, SHELLS, type Shell } from "../completion-scripts.js";
import type { CliContext } from "../context.js";

/** Adds arguments, options and the action. */
export function define(command: VarveCommand, cli: CliContext): void {
  command
    .addArgument(new Argument("<shell>", "The shell that you use").choices(SHELLS))
    .examples(
      [
        ["source <(varve completion bash)", "In this bash; in ~/.bashrc for every one"],
        ["varve completion zsh > ~/.zfunc/_varve", "A directory of zsh's fpath"],
        ["varve completion fish | source", "In this fish"],
      ],
      "Completes commands, options, and the names of images and views.",
    )
    .action((shell: Shell) => {
      cli.stdout.write(completionScript(shell));
    });
}
