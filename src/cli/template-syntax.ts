/**
 * The syntax of the Go templates that `--format` takes: text with `{{…}}` actions.
 *
 * Supported: fields (`.Name`, `.A.B`, `.`), literals ("text", `raw`, 12, true, nil), functions and
 * pipes (`json .A`, `.A | upper`), parentheses, `if`/`else if`/`else`, `range`/`else`, `with`,
 * `end`, comments, and `{{-`/`-}}` trimming. Not supported: variables and template definitions.
 *
 * @see https://pkg.go.dev/text/template
 */

import { UsageError } from "./usage-error.js";

/** An operand of a command. */
export type Operand =
  | { readonly kind: "field"; readonly path: readonly string[] }
  | { readonly kind: "literal"; readonly value: unknown }
  | { readonly kind: "function"; readonly name: string }
  | { readonly kind: "pipeline"; readonly pipeline: Pipeline };

/** Commands joined with "|"; each is a function with its arguments, or one value. */
export type Pipeline = readonly (readonly Operand[])[];

/** A piece of a template. */
export type TemplateNode =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "value"; readonly pipeline: Pipeline }
  | {
      readonly kind: "if" | "range" | "with";
      readonly pipeline: Pipeline;
      readonly body: readonly TemplateNode[];
      readonly otherwise: readonly TemplateNode[];
    };

type Piece = { readonly text: string } | { readonly action: string };

/**
 * Parses a template.
 *
 * @throws UsageError malformed, or an action that is not supported
 */
export function parseTemplate(source: string): readonly TemplateNode[] {
  const parser = new TemplateParser(splitActions(source));
  return parser.parse();
}

function splitActions(source: string): Piece[] {
  const pieces: Piece[] = [];
  let position = 0;
  let trimNext = false;
  while (position < source.length) {
    const start = source.indexOf("{{", position);
    const rawText = source.slice(position, start < 0 ? source.length : start);
    const trimEnd = start >= 0 && /^\{\{-\s/.test(source.slice(start, start + 4));
    let text = trimNext ? rawText.trimStart() : rawText;
    if (trimEnd) text = text.trimEnd();
    if (text !== "") pieces.push({ text });
    if (start < 0) break;
    const end = source.indexOf("}}", start + 2);
    if (end < 0) throw new UsageError(`--format: "{{" without "}}"`);
    let action = source.slice(start + 2, end);
    if (trimEnd) action = action.slice(1);
    trimNext = /\s-$/.test(action);
    if (trimNext) action = action.slice(0, -1);
    pieces.push({ action: action.trim() });
    position = end + 2;
  }
  return pieces;
}

const TOKEN =
  /\s*(?:(\.[\w]*(?:\.\w+)*)|("(?:[^"\\]|\\.)*")|(`[^`]*`)|(-?\d+(?:\.\d+)?)|([A-Za-z_]\w*)|([|()]))/y;

type Token = { readonly kind: "field" | "literal" | "word" | "sign"; readonly text: string };

function tokenize(action: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  const end = action.trimEnd().length;
  while (TOKEN.lastIndex < end) {
    const at = TOKEN.lastIndex;
    const match = TOKEN.exec(action);
    if (match === null) {
      throw new UsageError(`--format: cannot read ${JSON.stringify(action.slice(at))}`);
    }
    const [, field, quoted, raw, number, word, sign] = match;
    if (field !== undefined) tokens.push({ kind: "field", text: field });
    else if (quoted !== undefined) tokens.push({ kind: "literal", text: quoted });
    else if (raw !== undefined)
      tokens.push({ kind: "literal", text: JSON.stringify(raw.slice(1, -1)) });
    else if (number !== undefined) tokens.push({ kind: "literal", text: number });
    else if (word !== undefined) tokens.push({ kind: "word", text: word });
    else tokens.push({ kind: "sign", text: sign ?? "" });
  }
  return tokens;
}

const WORD_VALUES: Readonly<Record<string, unknown>> = { true: true, false: false, nil: null };

function operandOf(token: Token): Operand {
  if (token.kind === "field") {
    return { kind: "field", path: token.text.split(".").filter((part) => part !== "") };
  }
  if (token.kind === "literal") return { kind: "literal", value: parseLiteral(token.text) };
  if (token.text in WORD_VALUES) return { kind: "literal", value: WORD_VALUES[token.text] };
  return { kind: "function", name: token.text };
}

function parseLiteral(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError(`--format: bad string ${text}`);
  }
}

/** Reads commands up to the end or to a closing parenthesis, which is consumed by the caller. */
function parsePipeline(tokens: Token[], action: string): Pipeline {
  const pipeline: Operand[][] = [[]];
  for (let token = tokens[0]; token !== undefined && token.text !== ")"; token = tokens[0]) {
    tokens.shift();
    const command = pipeline[pipeline.length - 1] ?? [];
    if (token.kind === "sign" && token.text === "|") {
      pipeline.push([]);
    } else if (token.kind === "sign") {
      const inner = parsePipeline(tokens, action);
      if (tokens.shift() === undefined)
        throw new UsageError(`--format: "(" without ")": ${action}`);
      command.push({ kind: "pipeline", pipeline: inner });
    } else {
      command.push(operandOf(token));
    }
  }
  if (pipeline.some((command) => command.length === 0)) {
    throw new UsageError(`--format: empty command in {{${action}}}`);
  }
  return pipeline;
}

const BLOCK = /^(if|range|with)\s+(.*)$/s;

class TemplateParser {
  readonly #pieces: Piece[];
  #next = 0;

  constructor(pieces: Piece[]) {
    this.#pieces = pieces;
  }

  parse(): TemplateNode[] {
    const { nodes, stop } = this.#list();
    if (stop !== undefined) throw new UsageError(`--format: {{${stop}}} without a block`);
    return nodes;
  }

  /** Nodes up to "end" or "else …", which is returned as `stop`. */
  #list(): { nodes: TemplateNode[]; stop: string | undefined } {
    const nodes: TemplateNode[] = [];
    while (this.#next < this.#pieces.length) {
      const piece = this.#pieces[this.#next++];
      if (piece === undefined) break;
      if ("text" in piece) {
        nodes.push({ kind: "text", text: piece.text });
        continue;
      }
      const { action } = piece;
      if (action === "end" || /^else(\s|$)/.test(action)) return { nodes, stop: action };
      if (/^\/\*.*\*\/$/s.test(action)) continue;
      nodes.push(this.#action(action));
    }
    return { nodes, stop: undefined };
  }

  #action(action: string): TemplateNode {
    const block = BLOCK.exec(action);
    if (block === null) return { kind: "value", pipeline: this.#pipeline(action) };
    const kind = block[1] as "if" | "range" | "with";
    const pipeline = this.#pipeline(block[2] ?? "");
    const { nodes: body, stop } = this.#list();
    return { kind, pipeline, body, otherwise: this.#otherwise(kind, stop) };
  }

  #otherwise(kind: string, stop: string | undefined): readonly TemplateNode[] {
    if (stop === undefined) throw new UsageError(`--format: {{${kind}}} without {{end}}`);
    if (stop === "end") return [];
    const rest = stop.slice("else".length).trim();
    // "else if" opens a block that shares the outer one's end.
    if (rest !== "") return [this.#action(rest)];
    const { nodes, stop: last } = this.#list();
    if (last !== "end") throw new UsageError(`--format: {{else}} without {{end}}`);
    return nodes;
  }

  #pipeline(action: string): Pipeline {
    const tokens = tokenize(action);
    const pipeline = parsePipeline(tokens, action);
    if (tokens.length > 0) throw new UsageError(`--format: ")" without "(" in {{${action}}}`);
    return pipeline;
  }
}
