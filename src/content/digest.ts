/**
 * Content digests. The code lives in metadata, the lowest room that speaks of them; rooms above
 * import it from here.
 */

export {
  chainIdOf,
  chainIdsOf,
  type Digest,
  digestOf,
  hexOf,
  isDigest,
  parseDigest,
} from "../metadata/digest.js";
