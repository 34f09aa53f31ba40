/** Collects samples of several contestants and prints their medians and ratios. */

import { readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import { median } from "./measure.mjs";

export class Report {
  #title;
  #subjects;
  #rows = new Map();
  #facts = {};

  /** @param {string[]} subjects the contestants that ratios are of: "varve÷NAME" below 1 is faster than NAME */
  constructor(title, subjects = ["varve"]) {
    this.#title = title;
    this.#subjects = subjects;
  }

  /** Adds one run: `row` is the work, `side` who did it. */
  add(row, side, { wallMs, cpuMs, peakMiB }) {
    const sides = this.#rows.get(row) ?? new Map();
    this.#rows.set(row, sides);
    // What a run that is cut short has measured is not lost.
    process.stderr.write(
      `  ${row}: ${side}: ${number(wallMs)} ms, CPU ${number(cpuMs)} ms, ${number(peakMiB)} MiB\n`,
    );
    sides.set(side, [...(sides.get(side) ?? []), { wallMs, cpuMs, peakMiB }]);
  }

  /** Adds a single figure, shown below the tables. */
  fact(name, value) {
    this.#facts[name] = value;
  }

  /** Prints the tables; writes everything with every sample to `jsonPath` when given. */
  print(jsonPath) {
    const machine = machineNow();
    const names = [...new Set([...this.#rows.values()].flatMap((sides) => [...sides.keys()]))];
    if (names.length > 3 + this.#subjects.length) this.#printDown();
    else this.#printAcross(names);
    for (const [name, value] of Object.entries(this.#facts)) console.log(`${name}: ${value}`);
    if (jsonPath) writeFileSync(jsonPath, `${JSON.stringify(this.#toJson(machine), null, 2)}\n`);
  }

  /** One line for each work: for many works of few contestants. */
  #printAcross(names) {
    const peers = names.filter((name) => !this.#subjects.includes(name));
    const pairs = this.#subjects.flatMap((subject) => peers.map((peer) => [subject, peer]));
    printTable([
      ["wall, ms (median)", ...names, ...pairs.map((pair) => pair.join("÷")), "runs"],
      ...this.#mapRows((row, sides) => [
        row,
        ...names.map((name) => number(mid(sides, name, "wallMs"))),
        ...pairs.map(([subject, peer]) =>
          ratio(mid(sides, subject, "wallMs"), mid(sides, peer, "wallMs")),
        ),
        String(Math.max(...[...sides.values()].map((runs) => runs.length))),
      ]),
    ]);
    console.log();
    printTable([
      ["CPU, ms / peak, MiB (median, with daemons)", ...names],
      ...this.#mapRows((row, sides) => [
        row,
        ...names.map((name) =>
          sides.has(name)
            ? `${number(mid(sides, name, "cpuMs"))} / ${number(mid(sides, name, "peakMiB"))}`
            : "-",
        ),
      ]),
    ]);
  }

  /** One line for each contestant: for few works of many. */
  #printDown() {
    const [subject] = this.#subjects;
    for (const [row, sides] of this.#rows) {
      printTable([
        [row, "wall, ms", "CPU, ms", "peak, MiB", `${subject}÷this`, "runs"],
        ...[...sides].map(([name, runs]) => [
          name,
          ...["wallMs", "cpuMs", "peakMiB"].map((field) => number(mid(sides, name, field))),
          name === subject ? "" : ratio(mid(sides, subject, "wallMs"), mid(sides, name, "wallMs")),
          String(runs.length),
        ]),
      ]);
      console.log();
    }
  }

  #mapRows(render) {
    return [...this.#rows].map(([row, sides]) => render(row, sides));
  }

  #toJson(machine) {
    const rows = Object.fromEntries(
      this.#mapRows((row, sides) => [
        row,
        Object.fromEntries(
          [...sides].map(([name, runs]) => [
            name,
            {
              medianMs: mid(sides, name, "wallMs"),
              medianCpuMs: mid(sides, name, "cpuMs"),
              peakMiB: mid(sides, name, "peakMiB"),
              runs,
            },
          ]),
        ),
      ]),
    );
    return { title: this.#title, machine, rows, facts: this.#facts };
  }
}

function mid(sides, name, field) {
  return median(
    (sides.get(name) ?? []).map((run) => run[field]).filter((value) => value !== undefined),
  );
}

function number(value) {
  if (!Number.isFinite(value)) return "-";
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function ratio(ours, theirs) {
  return Number.isFinite(ours / theirs) ? (ours / theirs).toFixed(2) : "-";
}

function printTable(rows) {
  const widths = rows[0].map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  for (const row of rows)
    console.log(
      row
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column]),
        )
        .join("  ")
        .trimEnd(),
    );
}

function machineNow() {
  const cpu = readFileSync("/proc/cpuinfo", "utf8").match(/model name\s*: (.*)/)?.[1] ?? os.arch();
  return {
    cpu,
    cores: os.cpus().length,
    kernel: os.release(),
    node: process.version,
    load: os.loadavg()[0].toFixed(1),
  };
}

/** Yields every (round, contestant), the order turning with each round so that nobody always goes first. */
export function* interleaved(rounds, sides) {
  for (let round = 0; round < rounds; round++)
    for (let i = 0; i < sides.length; i++) yield [round, sides[(i + round) % sides.length]];
}
