/** JSON of what the command line prints. */

/** Maps as objects, 64-bit numbers as numbers (as strings when a double would lose digits). */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value.toString();
  }
  if (value instanceof Map) return Object.fromEntries(value);
  return value;
}

/** One line of JSON. */
export function toJsonLine(value: unknown): string {
  return JSON.stringify(value, plain) ?? "null";
}

/** JSON for a person: indented by four blanks, as docker inspect. */
export function toJsonText(value: unknown): string {
  return JSON.stringify(value, plain, 4) ?? "null";
}
