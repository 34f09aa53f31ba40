/** Points in time for a person. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

function count(value: number, unit: string): string {
  return `${value} ${unit}${value === 1 ? "" : "s"}`;
}

/** A length of time in docker's words: "About a minute", "3 hours", "2 weeks". */
export function humanDuration(milliseconds: number): string {
  const ms = Math.max(0, milliseconds);
  if (ms < SECOND) return "Less than a second";
  if (ms < MINUTE) return count(Math.floor(ms / SECOND), "second");
  if (ms < 2 * MINUTE) return "About a minute";
  if (ms < HOUR) return count(Math.floor(ms / MINUTE), "minute");
  if (ms < 2 * HOUR) return "About an hour";
  if (ms < 2 * DAY) return count(Math.floor(ms / HOUR), "hour");
  if (ms < 14 * DAY) return count(Math.floor(ms / DAY), "day");
  if (ms < 60 * DAY) return count(Math.floor(ms / (7 * DAY)), "week");
  if (ms < 2 * 365 * DAY) return count(Math.floor(ms / (30 * DAY)), "month");
  return count(Math.floor(ms / (365 * DAY)), "year");
}

/** A protobuf Timestamp, as far as it is needed here. */
export interface Instant {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** "3 hours ago"; "N/A" when the time is unknown. */
export function relativeTime(time: Instant | undefined, nowMs: number): string {
  if (time === undefined) return "N/A";
  return `${humanDuration(nowMs - Number(time.seconds) * 1000)} ago`;
}

/** RFC 3339 with as many digits of the second as there are: "2026-11-21T10:00:00.5Z"; "" when unknown. */
export function rfc3339(time: Instant | undefined): string {
  if (time === undefined) return "";
  const whole = dateOf(time)?.toISOString().slice(0, 19);
  // Beyond the years that a Date holds, the bare number is still the truth.
  if (whole === undefined) return `${time.seconds}s`;
  const fraction = String(time.nanos).padStart(9, "0").replace(/0+$/, "");
  return `${whole}${fraction === "" ? "" : `.${fraction}`}Z`;
}

/** Docker's long form, always in UTC: "2026-11-21 10:00:00 +0000 UTC"; "N/A" when unknown. */
export function longTime(time: Instant | undefined): string {
  if (time === undefined) return "N/A";
  const whole = dateOf(time)?.toISOString().slice(0, 19);
  return whole === undefined ? `${time.seconds}s` : `${whole.replace("T", " ")} +0000 UTC`;
}

function dateOf(time: Instant): Date | undefined {
  const date = new Date(Number(time.seconds) * 1000);
  return Number.isNaN(date.getTime()) ? undefined : date;
}
