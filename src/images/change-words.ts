/** The word rules of Dockerfile instructions: quotes, escapes and variables. */

import { InvalidArgumentError } from "../system/errors.js";

/** Looks a variable up; undefined when it is not set. */
export type Variables = (name: string) => string | undefined;

/**
 * Splits a line into words at spaces outside of quotes, still spelled as they were.
 *
 * @throws InvalidArgumentError a quote without its end
 */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word = "";
  let quote = "";
  let inWord = false;
  for (let at = 0; at < line.length; at++) {
    const character = line[at]!;
    if (quote === "" && /\s/.test(character)) {
      if (inWord) words.push(word);
      word = "";
      inWord = false;
      continue;
    }
    inWord = true;
    word += character;
    if (character === "\\" && quote !== "'" && at + 1 < line.length) word += line[++at]!;
    else if (quote === "" && (character === '"' || character === "'")) quote = character;
    else if (character === quote) quote = "";
  }
  if (quote !== "") throw new InvalidArgumentError(`${line}: a ${quote} without its end`);
  if (inWord) words.push(word);
  return words;
}

/**
 * Takes quotes and escapes away and puts variables in: `$NAME`, `${NAME}`, `${NAME:-default}`,
 * `${NAME:+other}`. A variable that is not set is empty.
 *
 * @throws InvalidArgumentError a malformed `${…}`, or a quote without its end
 */
export function expandWord(word: string, variables: Variables): string {
  let result = "";
  let quote = "";
  for (let at = 0; at < word.length; at++) {
    const character = word[at]!;
    if (quote === "'") {
      if (character === "'") quote = "";
      else result += character;
    } else if (character === "\\" && at + 1 < word.length) {
      const next = word[++at]!;
      // Inside double quotes a backslash escapes only what would be special there.
      result += quote === '"' && !/["$\\]/.test(next) ? `\\${next}` : next;
    } else if (character === "$") {
      const [value, length] = expandVariable(word.slice(at), variables);
      result += value;
      at += length - 1;
    } else if (character === '"') quote = quote === '"' ? "" : '"';
    else if (character === "'" && quote === "") quote = "'";
    else result += character;
  }
  if (quote !== "") throw new InvalidArgumentError(`${word}: a ${quote} without its end`);
  return result;
}

/** @returns the value and how many characters of `text`, which begins with "$", it stands for */
function expandVariable(text: string, variables: Variables): [value: string, length: number] {
  const plain = /^\$([A-Za-z_][A-Za-z0-9_]*)/.exec(text);
  if (plain !== null) return [variables(plain[1]!) ?? "", plain[0].length];
  if (!text.startsWith("${")) return ["$", 1];
  const braced = /^\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:[-+])([^}]*))?\}/.exec(text);
  if (braced === null) {
    throw new InvalidArgumentError(`${text}: want \${NAME}, \${NAME:-default} or \${NAME:+other}`);
  }
  const [whole, name, operator, other = ""] = braced;
  const value = variables(name!) ?? "";
  if (operator === ":-" && value === "") return [expandWord(other, variables), whole.length];
  if (operator === ":+") return [value === "" ? "" : expandWord(other, variables), whole.length];
  return [value, whole.length];
}
