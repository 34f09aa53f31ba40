/** Making elements, and writing numbers for people. */

type Child = Node | string;

/** An element with properties and children. Text is text: nothing that comes from an image is read as HTML. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** The element of the page with that ID. */
export function part(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** As `varve images` writes sizes. */
export function humanSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= (unit === 0 ? 1000 : 999.5) && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : Number(value.toPrecision(3))} ${UNITS[unit]}`;
}

/** 12,345 */
export function count(number: number): string {
  return number.toLocaleString("en");
}

const TYPES: Readonly<Record<number, string>> = {
  4: "d",
  8: "-",
  10: "l",
  2: "c",
  6: "b",
  1: "p",
  12: "s",
};

/** -rwxr-xr-x */
export function modeText(mode: number): string {
  const bits = "rwxrwxrwx".split("").map((letter, at) => (mode & (1 << (8 - at)) ? letter : "-"));
  if (mode & 0o4000) bits[2] = bits[2] === "x" ? "s" : "S";
  if (mode & 0o2000) bits[5] = bits[5] === "x" ? "s" : "S";
  if (mode & 0o1000) bits[8] = bits[8] === "x" ? "t" : "T";
  return (TYPES[mode >> 12] ?? "?") + bits.join("");
}
