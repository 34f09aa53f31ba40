/**
 * containerd's filter language, as its clients send it to List.
 *
 *     filter   := selector (',' selector)*            all must hold
 *     selector := path [('==' | '!=' | '~=') value]   without an operator: the field is there
 *     path     := part ('.' part)*                    part: a word, or quoted as in Go
 *     value    := quoted as in Go, or anything without a comma and white space;
 *                 after '~=' also between slashes or bars
 *
 * White space between them does not count.
 * `==` holds only where the field is there; `!=` and `~=` (a regular expression) take an absent one
 * for the empty string.
 *
 * @see https://pkg.go.dev/github.com/containerd/containerd/filters
 */

import { InvalidArgumentError } from "../../system/errors.js";

/** The value of a field; undefined: it is not there. */
export type FieldReader = (path: readonly string[]) => string | undefined;
/** Tells whether what the reader reads passes. */
export type Filter = (read: FieldReader) => boolean;

/**
 * Compiles filters, of which one must hold; without any, everything passes.
 *
 * @throws InvalidArgumentError a filter that does not parse
 */
export function compileFilters(texts: readonly string[]): Filter {
  const filters = texts.map((text) => new FilterParser(text).parse());
  if (filters.length === 0) return () => true;
  return (read) => filters.some((filter) => filter(read));
}

const SPACE = /\s*/y;
const WORD = /[A-Za-z0-9_]+/y;
const QUOTED = /"(?:[^"\\\n]|\\.)*"/y;
const DELIMITED = /\/(?:[^/\\\n]|\\.)*\/|\|(?:[^|\\\n]|\\.)*\|/y;
const COMMA = /,/y;
const DOT = /\./y;
const OPERATOR = /[=!~]+/y;
const BARE_VALUE = /[^\s,"][^\s,]*/y;

class FilterParser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): Filter {
    if (this.#isAtEnd()) return () => true;
    const selectors = [this.#selector()];
    while (!this.#isAtEnd()) {
      if (this.#take(COMMA) === undefined) throw this.#error("expected a comma");
      selectors.push(this.#selector());
    }
    return (read) => selectors.every((selector) => selector(read));
  }

  #selector(): Filter {
    const path = this.#path();
    const operator = this.#take(OPERATOR);
    if (operator === undefined) return (read) => read(path) !== undefined;
    return this.#comparison(path, operator);
  }

  #comparison(path: readonly string[], operator: string): Filter {
    if (operator === "~=") {
      const pattern = this.#pattern();
      return (read) => pattern.test(read(path) ?? "");
    }
    if (operator !== "==" && operator !== "!=") throw this.#error(`no operator "${operator}"`);
    const value = this.#value();
    if (operator === "==") return (read) => read(path) === value;
    return (read) => (read(path) ?? "") !== value;
  }

  #path(): string[] {
    const parts = [this.#part()];
    while (this.#take(DOT) !== undefined) parts.push(this.#part());
    return parts;
  }

  #part(): string {
    const word = this.#take(WORD);
    if (word !== undefined) return word;
    const quoted = this.#take(QUOTED);
    if (quoted === undefined) throw this.#error("expected the name of a field");
    return this.#unquote(quoted);
  }

  #value(): string {
    const quoted = this.#take(QUOTED);
    if (quoted !== undefined) return this.#unquote(quoted);
    const bare = this.#take(BARE_VALUE);
    if (bare === undefined) throw this.#error("expected a value");
    return bare;
  }

  #pattern(): RegExp {
    const delimited = this.#take(DELIMITED);
    const source = delimited === undefined ? this.#value() : delimited.slice(1, -1);
    try {
      return new RegExp(source);
    } catch (error) {
      throw this.#error((error as Error).message);
    }
  }

  /** Go's string literals; their escapes that matter for names are JSON's and \xHH. */
  #unquote(literal: string): string {
    const json = literal.replace(/\\x([0-9a-fA-F]{2})/g, "\\u00$1");
    try {
      return JSON.parse(json) as string;
    } catch {
      throw this.#error(`cannot read ${literal}`);
    }
  }

  #isAtEnd(): boolean {
    this.#skip(SPACE);
    return this.#at === this.#text.length;
  }

  #take(pattern: RegExp): string | undefined {
    this.#skip(SPACE);
    return this.#skip(pattern);
  }

  #skip(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #error(reason: string): InvalidArgumentError {
    return new InvalidArgumentError(
      `filter ${JSON.stringify(this.#text)}, character ${this.#at + 1}: ${reason}`,
    );
  }
}
