/** What a containerd asks of its snapshots. */

import type { Labels } from "../metadata/labels.js";

/** What `prepare` makes. */
export interface NewProxySnapshot {
  readonly kind: "active" | "view";
  readonly key: string;
  /** Empty: an empty root directory. */
  readonly parent: string;
  readonly labels: Labels;
}

/** What `commit` makes of an active snapshot. */
export interface ProxyCommit {
  readonly key: string;
  readonly name: string;
  readonly labels: Labels;
  /** For a snapshot that was prepared without a parent; else empty, or its parent. */
  readonly parent: string;
}
