/** Command lines of the benchmarks: --name value, --name (true), --help from the file's head comment. */

import { readFileSync } from "node:fs";

/**
 * @param {string} file the script, whose leading block comment is its help
 * @param {Record<string, string | number | boolean>} defaults the options, by name; a boolean takes no value
 */
export function parseOptions(file, defaults) {
  const options = { ...defaults };
  const args = process.argv.slice(2);
  while (args.length > 0) {
    const arg = args.shift();
    if (arg === "-h" || arg === "--help") {
      console.log(
        readFileSync(file, "utf8")
          .match(/\/\*\*\n([\s\S]*?)\n \*\//)[1]
          .replace(/^ \* ?/gm, ""),
      );
      process.exit(0);
    }
    const name = arg.replace(/^--/, "").replace(/-(\w)/g, (_, letter) => letter.toUpperCase());
    if (!arg.startsWith("--") || !(name in defaults))
      usageError(`unknown argument ${JSON.stringify(arg)}`);
    if (typeof defaults[name] === "boolean") options[name] = true;
    else if (args.length === 0) usageError(`${arg} needs a value`);
    else options[name] = typeof defaults[name] === "number" ? Number(args.shift()) : args.shift();
    if (typeof options[name] === "number" && !(options[name] >= 0))
      usageError(`${arg} needs a number`);
  }
  return options;
}

function usageError(message) {
  process.stderr.write(`${message} (see --help)\n`);
  process.exit(2);
}

/** Ends the program unless it runs as root, with a reason. */
export function mustBeRoot(why) {
  if (process.getuid() === 0) return;
  process.stderr.write(`this benchmark needs root: ${why}\n`);
  process.exit(1);
}
