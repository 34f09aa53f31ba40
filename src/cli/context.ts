/** What a command gets from the process that runs it. Tests make their own. */

import type { Writable } from "node:stream";
import type { VarveClient } from "../client/client.js";
import type { VarveCommand } from "./command.js";

/** A stream that text is written to, and what is known of the terminal behind it. */
export type OutputStream = Writable & {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
};

/** Where bytes come from. */
export type InputStream = AsyncIterable<Uint8Array> & { readonly isTTY?: boolean };

/** The process around a command. */
export interface CliIo {
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/** Options that every command has, as given on the command line. */
export interface GlobalOptions {
  readonly root?: string;
  readonly state?: string;
  readonly socket?: string;
  readonly config?: string;
  readonly autostart: boolean;
  readonly debug?: boolean;
}

/** The surroundings of one command. */
export interface CliContext extends CliIo {
  /** Global options; right once the arguments are parsed. */
  globals(): GlobalOptions;
  /**
   * A client of the daemon, which is started when it does not run and may be. Closed by the caller
   * of the command. Repeated calls give the same client.
   *
   * @throws UnavailableError no daemon runs, and none could be or may be started
   */
  connect(): Promise<VarveClient>;
  /** Loads the definition of the command of that name into `command`, which may have another name. */
  defineCommand(name: string, command: VarveCommand): Promise<void>;
  /** Writes one line to standard output. */
  print(line: string): void;
  /** Writes one line to standard error. */
  warn(line: string): void;
}

/** True when colours are wanted on the stream: a terminal, and nobody objects. */
export function wantsColor(stream: OutputStream, env: CliIo["env"]): boolean {
  // https://no-color.org: present and not empty, whatever its value.
  return stream.isTTY === true && !env.NO_COLOR && env.TERM !== "dumb";
}
