/** Points in time as docker's flags and filters take them. */

import { InvalidArgumentError } from "../system/errors.js";
import { nowNs } from "./clock.js";

const UNITS: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1_000n,
  µs: 1_000n,
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
  d: 86_400_000_000_000n,
};
const DURATION = /^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d))+$/;
const PART = /(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)/g;
const DATE = /^\d{4}-\d\d-\d\d(?:T\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?)?(?:Z|[+-]\d\d:\d\d)?$/;

/**
 * A length of time like "1h30m", in nanoseconds; Go's units and "d" for 24 hours.
 *
 * @throws InvalidArgumentError
 */
export function parseDuration(text: string): bigint {
  if (!DURATION.test(text)) {
    throw new InvalidArgumentError(
      `duration ${JSON.stringify(text)}: want numbers with units, for instance 90s, 10m or 1h30m`,
    );
  }
  let total = 0n;
  for (const [, number = "", unit = ""] of text.matchAll(PART)) {
    const [whole = "0", fraction = ""] = number.split(".");
    const size = UNITS[unit]!;
    total += BigInt(whole) * size;
    if (fraction !== "") total += (BigInt(fraction) * size) / 10n ** BigInt(fraction.length);
  }
  return total;
}

/**
 * Nanoseconds since 1970 of a point in time: seconds since 1970 with or without decimals, a date or
 * an RFC 3339 time (local when it has no zone), or a duration back from now.
 *
 * @throws InvalidArgumentError
 */
export function parsePointInTime(text: string): bigint {
  if (DURATION.test(text)) return nowNs() - parseDuration(text);
  const seconds = /^(\d{1,12})(?:\.(\d{1,9}))?$/.exec(text);
  if (seconds !== null) {
    return BigInt(seconds[1]!) * UNITS.s! + BigInt((seconds[2] ?? "").padEnd(9, "0"));
  }
  const milliseconds = DATE.test(text) ? Date.parse(completeDate(text)) : Number.NaN;
  if (Number.isNaN(milliseconds)) {
    throw new InvalidArgumentError(
      `time ${JSON.stringify(text)}: want seconds since 1970, a date like 2026-11-21 or ` +
        "2026-11-21T10:00:00Z, or a duration back from now like 10m",
    );
  }
  return BigInt(milliseconds) * UNITS.ms!;
}

/** JavaScript takes a bare date for UTC and refuses a bare hour; docker takes both for local time. */
function completeDate(text: string): string {
  const [, date = "", hour, rest = "", zone = ""] =
    /^(\d{4}-\d\d-\d\d)(?:T(\d\d)(:[\d:.]+)?)?(Z|[+-]\d\d:\d\d)?$/.exec(text) ?? [];
  return `${date}T${hour ?? "00"}${rest === "" ? ":00" : rest}${zone}`;
}
