/**
 * Credential helpers: programs `docker-credential-NAME` that keep passwords in a key store.
 *
 * @see https://github.com/docker/docker-credential-helpers
 */

import { spawn } from "node:child_process";
import { UnavailableError } from "../system/errors.js";
import type { Credentials, Environment } from "./access.js";
import { MAX_ANSWER_BYTES } from "./limits.js";

/** A key store may ask a person for its own password; nobody types for longer. */
const TIMEOUT_MS = 60_000;
/** What helpers give as the user name of an identity token. */
const TOKEN_USER = "<token>";

/** Asks a helper; undefined when it knows nothing of the server. @throws UnavailableError it fails */
export async function askHelper(
  helper: string,
  server: string,
  environment: Environment,
): Promise<Credentials | undefined> {
  const { status, output } = await runHelper(helper, "get", server, environment);
  if (status !== 0) {
    // The helpers share this wording; there is no exit code for it.
    if (/credentials not found|not found in native keychain|no credentials/i.test(output)) {
      return undefined;
    }
    throw new UnavailableError(
      `docker-credential-${helper} get: exit ${status}: ${output.trim().slice(0, 200)}`,
    );
  }
  const { Username, Secret } = parseAnswer(helper, output);
  if (typeof Secret !== "string" || Secret === "") return undefined;
  if (Username === TOKEN_USER) return { identityToken: Secret };
  return { username: String(Username ?? ""), password: Secret };
}

function parseAnswer(helper: string, output: string): { Username?: unknown; Secret?: unknown } {
  try {
    return JSON.parse(output) as { Username?: unknown; Secret?: unknown };
  } catch {
    throw new UnavailableError(`docker-credential-${helper} get: its answer is not JSON`);
  }
}

/** Gives credentials to a helper to keep. @throws UnavailableError */
export async function storeWithHelper(
  helper: string,
  server: string,
  credentials: Credentials,
  environment: Environment,
): Promise<void> {
  const secret =
    "identityToken" in credentials
      ? { Username: TOKEN_USER, Secret: credentials.identityToken }
      : "username" in credentials
        ? { Username: credentials.username, Secret: credentials.password }
        : { Username: "", Secret: credentials.registryToken };
  const input = JSON.stringify({ ServerURL: server, ...secret });
  await demand(helper, "store", input, environment);
}

/** Lets a helper forget a server. @throws UnavailableError */
export async function eraseWithHelper(
  helper: string,
  server: string,
  environment: Environment,
): Promise<void> {
  await demand(helper, "erase", server, environment);
}

async function demand(
  helper: string,
  action: string,
  input: string,
  environment: Environment,
): Promise<void> {
  const { status, output } = await runHelper(helper, action, input, environment);
  if (status === 0) return;
  throw new UnavailableError(
    `docker-credential-${helper} ${action}: exit ${status}: ${output.trim().slice(0, 200)}`,
  );
}

function runHelper(
  helper: string,
  action: string,
  input: string,
  environment: Environment,
): Promise<{ status: number | null; output: string }> {
  const program = `docker-credential-${helper}`;
  return new Promise((resolve, reject) => {
    const fail = (reason: string, cause?: unknown) =>
      reject(new UnavailableError(`${program} ${action}: ${reason}`, { cause }));
    // A name with a slash would run a file of anybody's choice.
    if (!/^[A-Za-z0-9][\w.-]*$/.test(helper)) return fail("the helper's name is malformed");
    const child = spawn(program, [action], {
      env: { ...environment },
      cwd: "/",
      stdio: ["pipe", "pipe", "ignore"],
      timeout: TIMEOUT_MS,
    });
    let output = "";
    child.once("error", (error) => fail(error.message, error));
    child.stdin.on("error", () => undefined);
    child.stdout.on("data", (chunk: Buffer) => {
      if (output.length < MAX_ANSWER_BYTES) output += chunk.toString();
    });
    child.once("close", (status) => resolve({ status, output }));
    child.stdin.end(input);
  });
}
