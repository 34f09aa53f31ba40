/**
 * `varve explore`: an image's layers and files as a page, or as text. The command line loads this file by its path:
 * no bundle holds it.
 */

import type { VarveClient } from "../client/client.js";
import { isPrivileged } from "../daemon/machine.js";
import { ExploreApi } from "./api.js";
import { type ExploreServer, serveExplorer } from "./server.js";
import { readSubject, type Subject } from "./subject.js";
import { describeSubject, type TerminalOptions } from "./terminal-tree.js";

/**
 * The subjects with these names: images or views.
 *
 * @throws NotFoundError one of them is neither
 */
export async function readSubjects(
  client: VarveClient,
  names: readonly string[],
): Promise<Subject[]> {
  const subjects: Subject[] = [];
  for (const name of names) subjects.push(await readSubject(client, name, isPrivileged()));
  return subjects;
}

/** Serves a page about the subjects on the loopback interface until it is closed. */
export function servePage(
  client: VarveClient,
  subjects: readonly Subject[],
  port: number,
): Promise<ExploreServer> {
  return serveExplorer(new ExploreApi(client, isPrivileged(), subjects), port);
}

/** The lines of `--tree`. */
export function describe(subject: Subject, options: TerminalOptions): string[] {
  return describeSubject(subject, options);
}
