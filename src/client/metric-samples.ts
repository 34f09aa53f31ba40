/** Reading the daemon's metrics: as much of Prometheus' text format as it writes. */

/** One line. */
export interface MetricSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES: Readonly<Record<string, string>> = { n: "\n", '"': '"', "\\": "\\" };

/** The samples of a page; comments, and what is none, are left out. */
export function parseMetrics(text: string): MetricSample[] {
  return text.split("\n").flatMap((line) => {
    const [, name, labels = "", value] = LINE.exec(line) ?? [];
    if (name === undefined) return [];
    const pairs = [...labels.matchAll(LABEL)].map(([, label = "", quoted = ""]) => {
      const plain = quoted.replace(/\\(.)/g, (_, escaped: string) => ESCAPES[escaped] ?? escaped);
      return [label, plain] as const;
    });
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value) }];
  });
}
