/** An image's `User` field ("name", "uid", "name:group", "uid:gid") looked up in the image's files. */

import { CorruptDataError, FailedPreconditionError } from "../system/errors.js";

/** Who a container's process is. */
export type ContainerUser = {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  readonly home: string;
};

/** Reads a file of a root file system by absolute path; undefined when it is absent. */
export type ReadRootFile = (path: string) => Promise<Buffer | undefined>;

type PasswdEntry = { name: string; uid: number; gid: number; home: string };
type GroupEntry = { name: string; gid: number; members: readonly string[] };

/** Larger ones are no IDs: the kernel's -1 means "none", and Go's tools stop here too. */
const MAX_ID = 2 ** 31 - 1;
/** Far above any real file; the image's author is not trusted. */
const MAX_LINES = 1_000_000;

/**
 * Resolves as docker does: a name must be in /etc/passwd, a number need not be; without a group it
 * is the user's own, with the additional groups that list the user; with one, there are no others.
 *
 * @throws FailedPreconditionError a name is not in /etc/passwd or /etc/group
 * @throws CorruptDataError a number out of range
 */
export async function resolveUser(spec: string, readFile: ReadRootFile): Promise<ContainerUser> {
  const [userSpec = "", groupSpec = ""] = spec.split(":");
  const users = parsePasswd(await readFile("/etc/passwd"));
  const groups = parseGroups(await readFile("/etc/group"));
  const uid = parseId(userSpec === "" ? "0" : userSpec, spec);
  const user = users.find((entry) =>
    uid === undefined ? entry.name === userSpec : entry.uid === uid,
  );
  if (user === undefined && uid === undefined) {
    throw new FailedPreconditionError(
      `the image's user ${JSON.stringify(spec)}: ${JSON.stringify(userSpec)} is not in its /etc/passwd`,
    );
  }
  const home = user?.home || "/";
  const id = uid ?? user!.uid;
  if (groupSpec !== "") {
    return { uid: id, gid: findGroup(groupSpec, groups, spec), additionalGids: [], home };
  }
  const gid = user?.gid ?? 0;
  const additionalGids = groups
    .filter((group) => user !== undefined && group.members.includes(user.name))
    .map((group) => group.gid);
  return { uid: id, gid, additionalGids: [...new Set(additionalGids)].sort((a, b) => a - b), home };
}

function findGroup(text: string, groups: readonly GroupEntry[], spec: string): number {
  const gid = parseId(text, spec) ?? groups.find((group) => group.name === text)?.gid;
  if (gid !== undefined) return gid;
  throw new FailedPreconditionError(
    `the image's user ${JSON.stringify(spec)}: ${JSON.stringify(text)} is not in its /etc/group`,
  );
}

/** @returns undefined for a name */
function parseId(text: string, spec: string): number | undefined {
  if (!/^[0-9]+$/.test(text)) return undefined;
  const id = Number(text);
  if (id <= MAX_ID) return id;
  throw new CorruptDataError(`the image's user ${JSON.stringify(spec)}: ${text} is too large`);
}

function parsePasswd(file: Buffer | undefined): PasswdEntry[] {
  return linesOf(file).flatMap(([name = "", , uid = "", gid = "", , home = ""]) =>
    /^[0-9]+$/.test(uid) ? [{ name, uid: Number(uid), gid: Number(gid) || 0, home }] : [],
  );
}

function parseGroups(file: Buffer | undefined): GroupEntry[] {
  return linesOf(file).flatMap(([name = "", , gid = "", members = ""]) =>
    /^[0-9]+$/.test(gid) ? [{ name, gid: Number(gid), members: members.split(",") }] : [],
  );
}

function linesOf(file: Buffer | undefined): string[][] {
  const lines = (file?.toString("utf8") ?? "").split("\n", MAX_LINES);
  return lines.filter((line) => line !== "" && !line.startsWith("#")).map((l) => l.split(":"));
}
