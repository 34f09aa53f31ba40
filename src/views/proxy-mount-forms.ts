/** The mounts that containerd is told to make. */

/** Who merges the layers of a container's root: a FUSE view of ours, or the kernel's overlayfs. */
export type MountForm = "fuse" | "overlay";

/** The arguments of one mount(2). */
export interface ProxyMount {
  readonly type: "bind" | "overlay";
  readonly source: string;
  /** As in fstab. */
  readonly options: readonly string[];
}

/** Shows a directory at another place. */
export function bindMount(source: string, isReadOnly: boolean): ProxyMount {
  return { type: "bind", source, options: ["rbind", isReadOnly ? "ro" : "rw"] };
}

/**
 * A mount of the kernel's overlayfs; read-only without an upper directory. containerd recognises this
 * form and unpacks straight into `upperDir`.
 *
 * @param o.layers base first, at least one
 */
export function overlayMount(o: {
  layers: readonly string[];
  upperDir?: string;
  workDir?: string;
}): ProxyMount {
  const { layers, upperDir, workDir } = o;
  if (upperDir === undefined || workDir === undefined) {
    // The kernel wants two layers where there is no upper directory.
    if (layers.length === 1) return bindMount(layers[0]!, true);
    return { type: "overlay", source: "overlay", options: [...FEATURES, lowerdir(layers)] };
  }
  const options = [...FEATURES, `workdir=${workDir}`, `upperdir=${upperDir}`, lowerdir(layers)];
  return { type: "overlay", source: "overlay", options };
}

// Layers that were written through our views have redirects and metacopy files, whatever this
// machine's defaults are. The index would refuse directories that had been mounted without it.
const FEATURES: readonly string[] = ["index=off", "redirect_dir=on", "metacopy=on"];

function lowerdir(layers: readonly string[]): string {
  return `lowerdir=${layers.toReversed().join(":")}`;
}
