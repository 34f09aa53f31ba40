/**
 * Where credentials are kept: docker's config.json and podman's auth.json.
 *
 * @see docker CLI "config.json"; containers-auth.json(5)
 */

import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import * as v from "valibot";
import { CorruptDataError, PermissionDeniedError } from "../system/errors.js";
import type { Environment } from "./access.js";
import { MAX_CONFIG_FILE_BYTES } from "./limits.js";

const text = v.nullish(v.string());
const entrySchema = v.looseObject({
  auth: text,
  username: text,
  password: text,
  identitytoken: text,
  registrytoken: text,
});
const fileSchema = v.looseObject({
  auths: v.nullish(v.record(v.string(), entrySchema)),
  credsStore: text,
  credHelpers: v.nullish(v.record(v.string(), v.string())),
});

/** One entry of "auths". */
export type CredentialEntry = v.InferOutput<typeof entrySchema>;
/** A credential file. */
export type CredentialFile = v.InferOutput<typeof fileSchema>;

/** The files that are searched, in order; the first that knows a registry decides. */
export function credentialFiles(environment: Environment): string[] {
  const { REGISTRY_AUTH_FILE, DOCKER_CONFIG, XDG_RUNTIME_DIR, HOME } = environment;
  // Who names one file means that file.
  if (isSet(REGISTRY_AUTH_FILE)) return [REGISTRY_AUTH_FILE];
  const files: string[] = [];
  if (isSet(DOCKER_CONFIG)) files.push(path.join(DOCKER_CONFIG, "config.json"));
  if (isSet(XDG_RUNTIME_DIR)) files.push(path.join(XDG_RUNTIME_DIR, "containers/auth.json"));
  else files.push(`/run/containers/${process.getuid?.() ?? 0}/auth.json`);
  if (isSet(HOME)) {
    files.push(path.join(HOME, ".config/containers/auth.json"));
    if (!isSet(DOCKER_CONFIG)) files.push(path.join(HOME, ".docker/config.json"));
  }
  return files;
}

/** The file that a login writes to. */
export function loginFile(environment: Environment): string {
  const { REGISTRY_AUTH_FILE, DOCKER_CONFIG, HOME } = environment;
  if (isSet(REGISTRY_AUTH_FILE)) return REGISTRY_AUTH_FILE;
  if (isSet(DOCKER_CONFIG)) return path.join(DOCKER_CONFIG, "config.json");
  return path.join(isSet(HOME) ? HOME : "/root", ".docker/config.json");
}

function isSet(value: string | undefined): value is string {
  return value !== undefined && value !== "";
}

/**
 * Reads a credential file; undefined when there is none.
 *
 * @throws CorruptDataError no such JSON
 * @throws PermissionDeniedError it may not be read
 */
export function readCredentialFile(file: string): CredentialFile | undefined {
  let source: string;
  try {
    if (statSync(file).size > MAX_CONFIG_FILE_BYTES) throw new Error("it is too large");
    source = readFileSync(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new PermissionDeniedError(`credentials in ${file}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (source.trim() === "") return {};
  let json: unknown;
  try {
    json = JSON.parse(source);
  } catch {
    // The parser's message would show a piece of the file, which holds passwords.
    throw new CorruptDataError(`credentials in ${file}: not JSON`);
  }
  const result = v.safeParse(fileSchema, json);
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new CorruptDataError(
    `credentials in ${file}: ${v.getDotPath(issue) ?? "the document"} is not as it should be`,
  );
}

/** Replaces a credential file by one rename; only its owner can read it. */
export function writeCredentialFile(file: string, content: CredentialFile): void {
  const temporary = `${file}.${randomBytes(6).toString("hex")}`;
  try {
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    writeFileSync(temporary, `${JSON.stringify(content, null, "\t")}\n`, {
      mode: 0o600,
      flag: "wx",
      flush: true,
    });
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new PermissionDeniedError(`save credentials in ${file}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
