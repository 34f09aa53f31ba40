/** Content digests: "sha256:" and 64 lower-case hexadecimal digits. */

import { hash } from "node:crypto";
import { InvalidArgumentError } from "../system/errors.js";

declare const digest: unique symbol;

/** A validated digest. */
export type Digest = string & { readonly [digest]: true };

const PATTERN = /^sha256:[0-9a-f]{64}$/;

/** True for a well-formed digest of a supported algorithm. */
export function isDigest(text: string): text is Digest {
  return PATTERN.test(text);
}

/**
 * Checks `text` and brands it.
 *
 * @throws InvalidArgumentError malformed, or an algorithm other than sha256
 */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text;
  throw new InvalidArgumentError(
    `digest ${JSON.stringify(text)}: want "sha256:" and 64 lower-case hexadecimal digits`,
  );
}

/** The part after "sha256:"; blobs and snapshots are stored under it. */
export function hexOf(value: Digest): string {
  return value.slice("sha256:".length);
}

/** The digest of bytes in memory. */
export function digestOf(data: Uint8Array | string): Digest {
  return `sha256:${hash("sha256", data, "hex")}` as Digest;
}

/**
 * The chain ID of layers, base first.
 *
 * @see OCI image-spec config.md, "Layer ChainID"
 */
export function chainIdOf(diffIds: readonly Digest[]): Digest | undefined {
  return chainIdsOf(diffIds).at(-1);
}

/** The chain IDs of every prefix of the layers, base first. */
export function chainIdsOf(diffIds: readonly Digest[]): Digest[] {
  const chains: Digest[] = [];
  for (const diffId of diffIds) {
    const parent = chains.at(-1);
    chains.push(parent === undefined ? diffId : digestOf(`${parent} ${diffId}`));
  }
  return chains;
}
