/**
 * The npm library.
 *
 *     import { Varve } from "varve";
 *     const varve = await Varve.open();
 *     const view = await varve.mount("busybox");
 *     console.log(view.path);
 *
 * `varve/client` is the same without `Varve`: the daemon's calls, one method each.
 */

export * from "./index.js";
export {
  type CommitOptions,
  MountedView,
  type MountOptions,
  type OpenOptions,
  type PullOptions,
  Varve,
  type ViewChange,
  type WorkOptions,
} from "./varve.js";
