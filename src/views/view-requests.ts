/** What is asked of views. */

import type { Digest } from "../content/digest.js";
import type { IoMode, RestartPolicy } from "../metadata/view-table.js";

/** What a new view is made of. */
export interface NewView {
  /** Generated when absent. */
  readonly name?: string | undefined;
  /** The image as the user named it, normalised. */
  readonly image: string;
  readonly imageId: Digest;
  readonly manifestDigest: Digest;
  /** Absent for an image without layers. */
  readonly chainId: Digest | undefined;
  readonly readOnly: boolean;
  /** Belongs to work that is under way: not listed, and removed when it outlives the daemon. */
  readonly isTransient?: boolean;
  /** Absent: the daemon's default. */
  readonly io?: IoMode | undefined;
  /** Absent: "no". */
  readonly restart?: RestartPolicy | undefined;
}

/** What a mount changes of its view, from now on. */
export interface MountWishes {
  readonly io?: IoMode | undefined;
  readonly restart?: RestartPolicy | undefined;
}
