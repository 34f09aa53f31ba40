/** The HEALTHCHECK instruction. */

import { InvalidArgumentError } from "../system/errors.js";
import type { JsonObject } from "./manifest.js";

const OPTIONS = new Map<string, string>([
  ["interval", "Interval"],
  ["timeout", "Timeout"],
  ["start-period", "StartPeriod"],
  ["start-interval", "StartInterval"],
  ["retries", "Retries"],
]);

const UNITS = new Map<string, number>([
  ["ns", 1],
  ["us", 1e3],
  ["µs", 1e3],
  ["ms", 1e6],
  ["s", 1e9],
  ["m", 60e9],
  ["h", 3600e9],
]);

/**
 * Parses `NONE` or `[--interval=30s] [--timeout=…] [--start-period=…] [--start-interval=…]
 * [--retries=N] CMD command`.
 *
 * @param parseCommand reads the command's JSON or shell form: ["CMD", …] or ["CMD-SHELL", text]
 * @throws InvalidArgumentError
 */
export function parseHealthcheck(
  text: string,
  parseCommand: (text: string) => readonly string[],
): JsonObject {
  const health: Record<string, unknown> = {};
  let rest = text.trim();
  for (let flag = nextFlag(rest); flag !== undefined; flag = nextFlag(rest)) {
    const field = OPTIONS.get(flag.name);
    if (field === undefined) {
      throw new InvalidArgumentError(
        `HEALTHCHECK: unknown option --${flag.name}; known are ` +
          [...OPTIONS.keys()].map((name) => `--${name}`).join(", "),
      );
    }
    health[field] =
      flag.name === "retries" ? parseRetries(flag.value) : parseDuration(flag.name, flag.value);
    rest = flag.rest;
  }
  const [kind, command] = splitFirst(rest);
  if (kind.toUpperCase() === "NONE" && command === "" && Object.keys(health).length === 0) {
    return { Test: ["NONE"] };
  }
  if (kind.toUpperCase() !== "CMD" || command === "") {
    throw new InvalidArgumentError(
      `HEALTHCHECK ${text}: want NONE, or options and then CMD with a command`,
    );
  }
  return { Test: parseCommand(command), ...health };
}

function nextFlag(text: string): { name: string; value: string; rest: string } | undefined {
  const match = /^--([a-z-]+)=(\S*)\s*/.exec(text);
  if (match === null) return undefined;
  return { name: match[1]!, value: match[2]!, rest: text.slice(match[0].length) };
}

function splitFirst(text: string): [string, string] {
  const match = /^(\S*)\s*([\s\S]*)$/.exec(text)!;
  return [match[1]!, match[2]!];
}

function parseRetries(value: string): number {
  if (/^[0-9]{1,9}$/.test(value)) return Number(value);
  throw new InvalidArgumentError(`HEALTHCHECK --retries=${value}: want a number`);
}

/** Go's duration syntax ("1m30s"), as nanoseconds. */
function parseDuration(name: string, value: string): number {
  const parts = [...value.matchAll(/([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)/g)];
  const isWhole = parts.map((part) => part[0]).join("") === value && value !== "";
  const total = parts.reduce(
    (sum, [, number, unit]) => sum + Number(number) * UNITS.get(unit!)!,
    0,
  );
  // docker refuses what is shorter than a millisecond; 0 means "the default".
  if ((isWhole || value === "0") && (total === 0 || total >= 1e6)) return Math.round(total);
  throw new InvalidArgumentError(
    `HEALTHCHECK --${name}=${value}: want a duration such as 30s or 1m30s, at least 1ms`,
  );
}
