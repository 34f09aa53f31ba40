/** Questions to the person at the terminal. */

import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { CancelledError } from "../system/errors.js";
import type { CliContext } from "./context.js";
import { UsageError } from "./usage-error.js";

/**
 * Asks on standard error and reads one line.
 *
 * @param isSecret what is typed is not shown
 * @throws UsageError standard input is no terminal
 * @throws CancelledError Ctrl-C or Ctrl-D
 */
export async function askPerson(
  cli: CliContext,
  question: string,
  isSecret: boolean,
  /** What to do where there is nobody to ask. */
  remedy = "use --username and --password-stdin",
): Promise<string> {
  if (cli.stdin.isTTY !== true) {
    throw new UsageError(`standard input is no terminal; ${remedy}`);
  }
  cli.stderr.write(question);
  // Readline shows what is typed by writing it: here, to nowhere.
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({
    input: cli.stdin as unknown as NodeJS.ReadableStream,
    output: isSecret ? nowhere : cli.stderr,
    terminal: true,
    prompt: "",
  });
  try {
    return await new Promise<string>((resolve, reject) => {
      const cancel = () => reject(new CancelledError("cancelled"));
      lines.once("line", resolve);
      lines.once("SIGINT", cancel);
      lines.once("close", cancel);
    });
  } finally {
    lines.close();
    if (isSecret) cli.stderr.write("\n");
  }
}
