/** `build-step IMAGE --run CMD ARG…`: the words of a command that follow one option. */

const COMMAND = "build-step";
const OPTION = "--run";

/**
 * Joins the words after `--run`, up to the next one that begins with "--", into one argument: several
 * become the JSON list that Dockerfiles have for a command without a shell. Only behind the image,
 * so that the image itself is never taken for a word of the command.
 */
export function joinRunWords(argv: readonly string[]): string[] {
  const command = argv.indexOf(COMMAND);
  if (command < 0) return [...argv];
  const joined = argv.slice(0, command + 1);
  for (let at = command + 1; at < argv.length; ) {
    const word = argv[at]!;
    if (word === "--") return [...joined, ...argv.slice(at)];
    at += 1;
    if (word !== OPTION || !hasOperand(argv.slice(command + 1, at - 1))) {
      joined.push(word);
      continue;
    }
    const next = argv.findIndex((other, position) => position > at && other.startsWith("--"));
    const words = argv.slice(at, next < 0 ? undefined : next);
    at += words.length;
    if (words.length === 0) joined.push(OPTION);
    else joined.push(`${OPTION}=${words.length === 1 ? words[0] : JSON.stringify(words)}`);
  }
  return joined;
}

/** True when one of the words stands for itself: neither an option nor the value of one. */
function hasOperand(words: readonly string[]): boolean {
  return words.some((word, position) => {
    const before = words[position - 1];
    const isValue = before?.startsWith("-") === true && !before.includes("=") && !isFlag(before);
    return !word.startsWith("-") && !isValue;
  });
}

/** Options of the command, and of all commands, that take no value. */
function isFlag(word: string): boolean {
  return ["-q", "--quiet", "--no-cache", "--no-autostart", "--debug"].includes(word);
}
