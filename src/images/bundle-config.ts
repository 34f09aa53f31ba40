/**
 * The OCI runtime configuration (config.json) of a container made from an image.
 *
 * @see OCI image-spec conversion.md; runtime-spec config.md, config-linux.md
 */

import {
  DEFAULT_CAPABILITIES,
  DEFAULT_MOUNTS,
  DEFAULT_PATH,
  MASKED_PATHS,
  READ_ONLY_PATHS,
} from "./bundle-defaults.js";
import { type ContainerUser, type ReadRootFile, resolveUser } from "./container-user.js";
import type { ContainerConfig, ImageConfig, JsonObject } from "./manifest.js";

/** A run of IDs of the image, on disk, and what they are on the host. */
interface MappedIds {
  readonly disk: number;
  readonly shown: number;
  readonly size: number;
}

/** What the bundle is for. */
export type BundleOptions = {
  readonly config: ImageConfig;
  /** Absolute path of the mounted view. */
  readonly rootPath: string;
  readonly readOnly: boolean;
  readonly hostname: string;
  /** The view shows the image's users as these of the host; the container gets a user namespace with them. */
  readonly idMaps?:
    | { readonly uids: readonly MappedIds[]; readonly gids: readonly MappedIds[] }
    | undefined;
  /** Reads a file of the view, e.g. "/etc/passwd"; undefined when it is absent. */
  readonly readFile: ReadRootFile;
};

/**
 * Makes the config.json of a container that runs the image's command as its user, in namespaces of
 * its own (its network has only a loopback device), with docker's capabilities and masked paths.
 *
 * @throws FailedPreconditionError the image's user or group is not in the view's /etc/passwd, /etc/group
 * @throws CorruptDataError a malformed user
 */
export async function bundleConfig(options: BundleOptions): Promise<JsonObject> {
  const { config, rootPath, readOnly, hostname } = options;
  const settings = config.config;
  const user = await resolveUser(settings.User ?? "", options.readFile);
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: {
        uid: user.uid,
        gid: user.gid,
        ...(user.additionalGids.length === 0 ? {} : { additionalGids: user.additionalGids }),
      },
      args: argumentsOf(settings),
      env: environmentOf(settings, user),
      cwd: workingDirectoryOf(settings),
      capabilities: capabilitiesOf(user),
      // No rlimits: the runtime's own are inherited, and raising them may not be allowed.
      noNewPrivileges: false,
    },
    root: { path: rootPath, readonly: readOnly },
    hostname,
    mounts: DEFAULT_MOUNTS,
    annotations: annotationsOf(config),
    linux: {
      resources: { devices: [{ allow: false, access: "rwm" }] },
      ...namespacesOf(options),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READ_ONLY_PATHS,
    },
  };
}

/** @see runtime-spec config-linux.md, "Namespaces" and "User namespace mappings" */
function namespacesOf({ idMaps }: BundleOptions): JsonObject {
  const types = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
  if (idMaps === undefined) return { namespaces: types.map((type) => ({ type })) };
  return {
    namespaces: ["user", ...types].map((type) => ({ type })),
    uidMappings: idMaps.uids.map(toMapping),
    gidMappings: idMaps.gids.map(toMapping),
  };
}

function toMapping({ disk, shown, size }: MappedIds): JsonObject {
  return { containerID: disk, hostID: shown, size };
}

function argumentsOf(settings: ContainerConfig): readonly string[] {
  const args = [...(settings.Entrypoint ?? []), ...(settings.Cmd ?? [])];
  // A bundle must say something; the user will edit it when the image has no command.
  return args.length === 0 ? ["/bin/sh"] : args;
}

function environmentOf(settings: ContainerConfig, user: ContainerUser): string[] {
  const env = [...(settings.Env ?? [])];
  const has = (name: string) => env.some((entry) => entry.startsWith(`${name}=`));
  if (!has("PATH")) env.unshift(`PATH=${DEFAULT_PATH}`);
  if (!has("HOME")) env.push(`HOME=${user.home}`);
  return env;
}

function workingDirectoryOf(settings: ContainerConfig): string {
  const directory = settings.WorkingDir ?? "";
  return directory.startsWith("/") ? directory : `/${directory}`;
}

/** As docker: a user other than root may gain capabilities only through files that carry them. */
function capabilitiesOf(user: ContainerUser): JsonObject {
  const bounding = DEFAULT_CAPABILITIES;
  const own = user.uid === 0 ? bounding : [];
  return { bounding, effective: own, permitted: own, inheritable: [], ambient: [] };
}

/** @see OCI image-spec conversion.md, "Annotation Fields" */
function annotationsOf(config: ImageConfig): JsonObject {
  const prefix = "org.opencontainers.image.";
  const ports = Object.keys(config.config.ExposedPorts ?? {});
  const fields: Record<string, string | undefined> = {
    os: config.os,
    architecture: config.architecture,
    variant: config.variant,
    author: config.author,
    created: config.created,
    stopSignal: config.config.StopSignal,
    exposedPorts: ports.length === 0 ? undefined : ports.join(","),
  };
  const implicit = Object.entries(fields)
    .filter(([, value]) => value !== undefined && value !== "")
    .map(([name, value]) => [prefix + name, value]);
  return { ...Object.fromEntries(implicit), ...config.config.Labels };
}
