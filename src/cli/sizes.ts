/** Byte counts for a person. */

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/**
 * Decimal units and three significant digits, as docker prints sizes: 0B, 999B, 4.26MB, 123MB.
 *
 * @param bytes not negative
 */
export function humanSize(bytes: number | bigint): string {
  let value = Number(bytes);
  let unit = 0;
  // 999.5 would round to "1000": the next unit says it in three digits.
  while (value >= (unit === 0 ? 1000 : 999.5) && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : Number(value.toPrecision(3))}${UNITS[unit]}`;
}

/** Bytes per second, for instance "45.2MB/s". */
export function humanRate(bytesPerSecond: number): string {
  return `${humanSize(bytesPerSecond)}/s`;
}
