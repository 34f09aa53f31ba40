/**
 * Prometheus' text format.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/
 */

/** Labels of one sample. */
export type SampleLabels = Readonly<Record<string, string>>;

/** A histogram's figures: `classes` are parallel to `bounds`, with one more for the rest; not cumulative. */
export interface Distribution {
  readonly bounds: readonly number[];
  readonly classes: readonly number[];
  readonly sum: number;
}

/** Gathers families of samples. */
export class Exposition {
  readonly #lines: string[] = [];

  /** Starts a family; its samples follow. */
  family(name: string, type: "counter" | "gauge" | "histogram", help: string): Family {
    this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    return new Family(name, this.#lines);
  }

  get text(): string {
    return `${this.#lines.join("\n")}\n`;
  }
}

/** The samples of one name. */
export class Family {
  readonly #name: string;
  readonly #lines: string[];

  constructor(name: string, lines: string[]) {
    this.#name = name;
    this.#lines = lines;
  }

  sample(value: number, labels: SampleLabels = {}): this {
    this.#lines.push(`${this.#name}${labelText(labels)} ${value}`);
    return this;
  }

  histogram({ bounds, classes, sum }: Distribution, labels: SampleLabels): this {
    let total = 0;
    const limits = [...bounds.map(String), "+Inf"];
    limits.forEach((le, position) => {
      total += classes[position] ?? 0;
      this.#lines.push(`${this.#name}_bucket${labelText({ ...labels, le })} ${total}`);
    });
    this.#lines.push(`${this.#name}_sum${labelText(labels)} ${sum}`);
    this.#lines.push(`${this.#name}_count${labelText(labels)} ${total}`);
    return this;
  }
}

function labelText(labels: SampleLabels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escaped(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
