import type { Descriptor } from "../content/descriptor.js";
import type { Digest } from "../content/digest.js";
import type { ResolvedImage } from "./image-store.js";

/** SKELETON. The new image's config and manifest as bytes; write them with ContentStore.writeBlob. */
export type CommittedImageFiles = {
  readonly id: Digest;
  readonly configBytes: Buffer;
  readonly manifestBytes: Buffer;
  readonly configDescriptor: Descriptor;
  readonly manifestDescriptor: Descriptor;
  readonly chainId?: Digest;
};
export declare function buildCommit(o: {
  base: ResolvedImage;
  /** Absent when nothing changed: history entry with empty_layer. */
  layer?: { descriptor: { digest: Digest; size: number; mediaType: string }; diffId: Digest };
  changes?: readonly string[];
  author?: string;
  message?: string;
  /** Default: SOURCE_DATE_EPOCH if given by the caller, see the body. */
  created?: Date;
  createdBy?: string;
}): CommittedImageFiles;
