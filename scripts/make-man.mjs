#!/usr/bin/env node
// Writes manual pages into a directory, one per command, made of the command line's own help.
//
//   scripts/make-man.mjs DIR
//   scripts/make-man.mjs --markdown FILE     all of them as one document, docs/commands.md

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const isDocument = process.argv[2] === "--markdown";
const output = process.argv[isDocument ? 3 : 2];
if (output === undefined) {
  console.error("make-man: want a directory, or --markdown and a file");
  process.exit(2);
}
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
// The day of the sources, where the builder knows it: the same sources make the same pages.
const epoch = Number(process.env.SOURCE_DATE_EPOCH ?? Date.now() / 1000);
const date = new Date(epoch * 1000).toISOString().slice(0, 10);

/** The help of a command, as in a pipe. */
function help(...words) {
  const { stdout, status, stderr } = spawnSync(
    process.execPath,
    [join(root, "bin/varve"), "help", ...words],
    { encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } },
  );
  if (status !== 0) throw new Error(`varve help ${words.join(" ")}: ${stderr}`);
  return stdout;
}

/** Text for troff: no line of it is a request, no dash a hyphen. */
function troff(text) {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^([.'])/gm, "\\&$1");
}

/** Sections of a help text: [title, lines]; what stands before the first title has the title "". */
function sectionsOf(text) {
  const sections = [["", []]];
  for (const line of text.split("\n")) {
    const title = /^([A-Z][^:]*):$/.exec(line)?.[1];
    if (title === undefined) sections.at(-1)[1].push(line);
    else sections.push([title, []]);
  }
  return sections;
}

/** "  -f, --format <format>  json, or a Go template", and lines that continue it. */
function definitions(lines) {
  const items = [];
  const notes = [];
  for (const line of lines) {
    if (/^\S/.test(line)) {
      notes.push(line);
      continue;
    }
    const item = /^ {2,6}(\S.*?)(?: {2,}(\S.*))?$/.exec(line);
    const indent = /^ */.exec(line)[0].length;
    if (item !== null && indent <= 6) items.push([item[1], item[2] ?? ""]);
    else if (line.trim() !== "") items.at(-1)[1] += ` ${line.trim()}`;
  }
  const list = items.map(([term, text]) => `.TP\n.B ${troff(term)}\n${troff(text || " ")}`);
  return [...list, ...(notes.length === 0 ? [] : [".PP", troff(notes.join("\n"))])].join("\n");
}

/** Whatever else is in a help: shown as it is. */
function literal(lines) {
  const text = lines.join("\n").replace(/^\n+|\n+$/g, "");
  return text === "" ? "" : `.nf\n${troff(text)}\n.fi`;
}

function page(name, summary, text) {
  const [[, intro], ...sections] = sectionsOf(text);
  const usage = intro[0].replace(/^Usage: /, "");
  const description = intro.slice(1).join("\n").trim();
  const body = sections.map(([title, lines]) => {
    const isList =
      /^(Options|Arguments)$/.test(title) ||
      (name === "varve" && !/Examples|Environment|Exit/.test(title));
    return `.SH ${troff(title.toUpperCase())}\n${isList ? definitions(lines) : literal(lines)}`;
  });
  const seeAlso = name === "varve" ? "" : ".SH SEE ALSO\n.BR varve (1)\n";
  return `.TH ${troff(name.toUpperCase())} 1 ${date} "varve ${version}" "User Commands"
.SH NAME
${troff(name)} \\- ${troff(summary)}
.SH SYNOPSIS
${troff(usage)}
.SH DESCRIPTION
${troff(description)}
${body.join("\n")}
${seeAlso}`;
}

function write(name, summary, text) {
  const source = page(name, summary, text).replace(/\n{2,}/g, "\n");
  writeFileSync(join(output, `${name}.1.gz`), gzipSync(source, { level: 9 }));
}

/** The commands of the overview, in its order: group, name, summary. */
function commands(overview) {
  return sectionsOf(overview)
    .filter(([title]) => !/^(|Options|Environment|Exit codes|Examples)$/.test(title))
    .flatMap(([group, lines]) =>
      lines.flatMap((line) => {
        const [, name, summary] = /^ {2}([a-z-]+) {2,}(.*)$/.exec(line) ?? [];
        return name === undefined ? [] : [{ group, name, summary }];
      }),
    );
}

const overview = help();
if (isDocument) {
  const block = (text) => `\`\`\`text\n${text.trimEnd()}\n\`\`\`\n`;
  const parts = [
    "# Every command\n\nMade of `varve help` by `scripts/make-man.mjs --markdown docs/commands.md`.\n",
    block(overview),
    ...commands(overview).flatMap(({ name }) => [`## varve ${name}\n`, block(help(name))]),
  ];
  writeFileSync(output, parts.join("\n"));
} else {
  mkdirSync(output, { recursive: true });
  write(
    "varve",
    "mount OCI images as writable root file systems, and commit what changed",
    overview,
  );
  for (const { name, summary } of commands(overview)) {
    write(`varve-${name}`, summary[0].toLowerCase() + summary.slice(1), help(name));
  }
}
