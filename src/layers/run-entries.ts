/** What a run of layers has in one directory, name by name. */

import type { ByteString } from "../system/bytes.js";
import type { DiskTree, SortedScan } from "./layer-scan.js";
import type { OverlayMarks } from "./overlay-marks.js";

/** One layer of a run. */
export interface RunLayer {
  /** Its own tree. */
  readonly disk: DiskTree;
  /** Of the chain that ends with it. */
  readonly chainId: string;
}

/** A directory in one of the layers. */
export interface Source {
  /** Position in the run. */
  readonly layer: number;
  readonly marks: OverlayMarks;
}

/** An entry in one of the layers. */
export interface Place {
  readonly source: Source;
  readonly scan: SortedScan;
  readonly position: number;
}

/**
 * The names in the directory at `path`, in order, each with its places, topmost first.
 *
 * @param sources the layers that have the directory, topmost first
 * @throws SyscallError it cannot be read
 */
export function* entriesByName(
  run: readonly RunLayer[],
  sources: readonly Source[],
  path: ByteString,
): Generator<readonly Place[]> {
  const byName = new Map<ByteString, Place[]>();
  for (const source of sources) {
    const scan = run[source.layer]!.disk.scan(path);
    for (const position of scan.order) {
      const place = { source, scan, position };
      const others = sources.length === 1 ? undefined : byName.get(nameOf(place));
      if (sources.length === 1) yield [place];
      else if (others === undefined) byName.set(nameOf(place), [place]);
      else others.push(place);
    }
  }
  // Strings of one byte per character sort as their bytes do.
  for (const name of [...byName.keys()].sort()) yield byName.get(name)!;
}

/** The name of an entry. */
export function nameOf({ scan, position }: Place): ByteString {
  return scan.names[position]!;
}
