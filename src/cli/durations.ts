/** Lengths of time on the command line. */

import { InvalidArgumentError } from "commander";

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** "90s", "10m", "1h30m" or "7d" as whole seconds; for options. */
export function secondsOfDuration(text: string): number {
  const parts = [...text.matchAll(/(\d{1,9})([smhd])/g)];
  const isWhole = parts.map(([part]) => part).join("") === text;
  const seconds = parts.reduce(
    (sum, [, count, unit]) => sum + Number(count) * SECONDS[unit ?? "s"]!,
    0,
  );
  if (isWhole && seconds > 0) return seconds;
  throw new InvalidArgumentError("want a duration, for instance 90s, 10m, 1h30m or 7d");
}
