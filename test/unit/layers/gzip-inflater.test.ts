/** The compressor's output, read by an inflater that shares no code with zlib. */

import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ungzip } from "pako";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LayerCompressor } from "../../../src/layers/layer-compressor.js";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "varve-inflater-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function compress(chunks: readonly Buffer[]): Promise<Buffer> {
  const outputPath = join(directory, "layer");
  const compressor = await LayerCompressor.create({ outputPath, compression: "gzip" });
  for (const chunk of chunks) await compressor.write(chunk);
  await compressor.finish();
  return readFileSync(outputPath);
}

describe("a gzip layer", () => {
  const cases: Record<string, Buffer[]> = {
    "of nothing": [],
    "of one byte": [Buffer.from("x")],
    "of noise over several blocks": [randomBytes(3_000_001)],
    "of text in uneven pieces": Array.from({ length: 500 }, (_, n) =>
      Buffer.from(`line ${n} `.repeat(n)),
    ),
  };
  for (const [what, chunks] of Object.entries(cases)) {
    it(`${what} is one member that an independent inflater reads whole`, async () => {
      const inflated = Buffer.from(ungzip(await compress(chunks)));
      expect(inflated.equals(Buffer.concat(chunks))).toBe(true);
    });
  }
});
