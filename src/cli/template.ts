/** Runs the Go templates of `--format` over plain objects; see template-syntax.ts for what they may hold. */

import { toJsonLine } from "./json.js";
import {
  type Operand,
  type Pipeline,
  parseTemplate,
  type TemplateNode,
} from "./template-syntax.js";
import { UsageError } from "./usage-error.js";

/**
 * What a template may print: objects have a fixed set of fields (a missing one is an error that names
 * the others), Maps have free keys (a missing one is "<no value>").
 */
export type TemplateData = object;

/** A compiled template: data in, text out. */
export type Template = (data: TemplateData) => string;

/**
 * Compiles a template. Docker's literal `\t` and `\n` in the source are a tab and a newline.
 *
 * @throws UsageError malformed; the returned function throws it for an unknown field or function
 */
export function compileTemplate(source: string): Template {
  const nodes = parseTemplate(source.replaceAll("\\t", "\t").replaceAll("\\n", "\n"));
  return (data) => renderNodes(nodes, data);
}

function renderNodes(nodes: readonly TemplateNode[], data: unknown): string {
  let text = "";
  for (const node of nodes) text += renderNode(node, data);
  return text;
}

function renderNode(node: TemplateNode, data: unknown): string {
  if (node.kind === "text") return node.text;
  const value = evaluate(node.pipeline, data);
  if (node.kind === "value") return goText(value);
  if (node.kind === "range") {
    const items = itemsOf(value);
    if (items.length === 0) return renderNodes(node.otherwise, data);
    return items.map((item) => renderNodes(node.body, item)).join("");
  }
  if (!isTruthy(value)) return renderNodes(node.otherwise, data);
  return renderNodes(node.body, node.kind === "with" ? value : data);
}

function itemsOf(value: unknown): readonly unknown[] {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value;
  if (value instanceof Map) return [...value.values()];
  throw new UsageError(`--format: range over ${toJsonLine(value)}: want a list`);
}

function isTruthy(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  return Boolean(value);
}

function evaluate(pipeline: Pipeline, data: unknown): unknown {
  let value: unknown;
  pipeline.forEach((command, position) => {
    value = runCommand(command, data, position === 0 ? [] : [value]);
  });
  return value;
}

function runCommand(
  command: readonly Operand[],
  data: unknown,
  piped: readonly unknown[],
): unknown {
  const [first, ...rest] = command;
  if (first?.kind !== "function") {
    if (first === undefined || rest.length > 0 || piped.length > 0) {
      throw new UsageError("--format: only a function takes arguments");
    }
    return operandValue(first, data);
  }
  const run = FUNCTIONS[first.name];
  if (run === undefined) {
    const known = Object.keys(FUNCTIONS).sort().join(", ");
    throw new UsageError(`--format: no function "${first.name}"; known functions: ${known}`);
  }
  return run([...rest.map((operand) => operandValue(operand, data)), ...piped]);
}

function operandValue(operand: Operand, data: unknown): unknown {
  switch (operand.kind) {
    case "literal":
      return operand.value;
    case "pipeline":
      return evaluate(operand.pipeline, data);
    case "function":
      return runCommand([operand], data, []);
    case "field":
      return operand.path.reduce(fieldOf, data);
  }
}

function fieldOf(value: unknown, name: string): unknown {
  if (value === null || value === undefined) return undefined;
  if (value instanceof Map) return value.get(name);
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new UsageError(`--format: no field "${name}" in ${toJsonLine(value)}`);
  }
  if (!Object.hasOwn(value, name)) {
    const known = Object.keys(value).sort().join(", ");
    throw new UsageError(`--format: no field "${name}"; known fields: ${known}`);
  }
  return (value as Record<string, unknown>)[name];
}

/** A value as Go's template package prints it. */
function goText(value: unknown): string {
  if (value === undefined || value === null) return "<no value>";
  if (Array.isArray(value)) return `[${value.map(goText).join(" ")}]`;
  if (value instanceof Map || typeof value === "object") {
    const entries = value instanceof Map ? [...value] : Object.entries(value);
    return `map[${entries.map(([key, item]) => `${key}:${goText(item)}`).join(" ")}]`;
  }
  return String(value);
}

type TemplateFunction = (args: readonly unknown[]) => unknown;

function lengthOf(value: unknown): number {
  if (value instanceof Map) return value.size;
  if (typeof value === "string" || Array.isArray(value)) return value.length;
  return typeof value === "object" && value !== null ? Object.keys(value).length : 0;
}

function indexInto(args: readonly unknown[]): unknown {
  return args.slice(1).reduce((value: unknown, key) => {
    if (Array.isArray(value)) return value[Number(key)];
    return fieldOf(value, String(key));
  }, args[0]);
}

function joinList(args: readonly unknown[]): string {
  return itemsOf(args[0]).map(goText).join(goText(args[1]));
}

const FUNCTIONS: Readonly<Record<string, TemplateFunction>> = {
  and: (args) => args.find((value) => !isTruthy(value)) ?? args.at(-1),
  eq: (args) => args.slice(1).some((value) => goText(value) === goText(args[0])),
  index: indexInto,
  join: joinList,
  json: (args) => toJsonLine(args[0]),
  len: (args) => lengthOf(args[0]),
  lower: (args) => goText(args[0]).toLowerCase(),
  ne: (args) => goText(args[0]) !== goText(args[1]),
  not: (args) => !isTruthy(args[0]),
  or: (args) => args.find(isTruthy) ?? args.at(-1),
  print: (args) => args.map(goText).join(""),
  println: (args) => `${args.map(goText).join(" ")}\n`,
  split: (args) => goText(args[0]).split(goText(args[1])),
  truncate: (args) => goText(args[0]).slice(0, Number(args[1])),
  upper: (args) => goText(args[0]).toUpperCase(),
};
