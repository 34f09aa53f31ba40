/** What `varve inspect` shows of an image and a view: docker's field names where docker has the field. */

import type { Descriptor, InspectImageResponse, Snapshot, View } from "../client/index.js";
import { CorruptDataError, NotFoundError } from "../system/errors.js";
import { familiarName } from "./image-names.js";
import { rfc3339 } from "./times.js";

/** The parts of an OCI image configuration that are shown. */
interface ImageConfig {
  readonly author?: string;
  readonly history?: readonly { readonly comment?: string }[];
  readonly config?: Readonly<Record<string, unknown>>;
}

// Always there, so that a template can name them on any image.
const CONFIG_DEFAULTS = {
  User: "",
  ExposedPorts: null,
  Env: null,
  Entrypoint: null,
  Cmd: null,
  Healthcheck: null,
  Volumes: null,
  WorkingDir: "",
  Labels: null,
  StopSignal: "",
  OnBuild: null,
};

// Free keys: a template may ask for one that is not there.
const MAP_FIELDS = new Set(["ExposedPorts", "Volumes", "Labels"]);

/** The object that stands for an image. */
export function describeImage(response: InspectImageResponse): object {
  const image = response.image;
  if (image === undefined) throw new NotFoundError("inspect: the daemon sent no image");
  const config = parseConfig(response.config, image.id);
  return {
    Id: image.id,
    RepoTags: image.repoTags.map(familiarName),
    RepoDigests: image.repoDigests.map(familiarName),
    Comment: config.history?.at(-1)?.comment ?? "",
    Created: rfc3339(image.created),
    Author: config.author ?? "",
    Config: describeConfig(config.config ?? {}),
    Architecture: image.architecture,
    Variant: image.variant,
    Os: image.os,
    Size: image.size,
    RootFS: { Type: "layers", Layers: response.diffIds },
    Descriptor: describeDescriptor(response.target),
    ManifestDescriptor: describeDescriptor(response.manifestDescriptor),
    ConfigDescriptor: describeDescriptor(response.configDescriptor),
    Platform: response.platform,
    Platforms: response.platforms.map((one) => ({
      Platform: one.platform,
      Manifest: describeDescriptor(one.manifest),
      Config: describeDescriptor(one.config),
      Complete: one.complete,
    })),
    // Docker's place for what a driver has on the disk.
    GraphDriver: { Name: "varve", Data: { LowerDir: response.lowerDirs.join(":") } },
    Layers: response.layers.map(describeDescriptor),
    ChainIDs: response.chainIds,
    ChainID: image.chainId,
    Unpacked: image.unpacked,
    Pinned: image.pinned,
    PinnedReferences: image.pinnedReferences.map(familiarName),
    LastUsed: rfc3339(image.lastUsed),
    Labels: new Map(Object.entries(image.labels)),
  };
}

function describeDescriptor(descriptor: Descriptor | undefined): object | null {
  if (descriptor === undefined) return null;
  const { mediaType, digest, size } = descriptor;
  return { mediaType, digest, size };
}

/** The object that stands for an unpacked layer. */
export function describeSnapshot(snapshot: Snapshot | undefined): object {
  if (snapshot === undefined) throw new NotFoundError("inspect: the daemon sent no layer");
  return {
    ChainID: snapshot.chainId,
    Parent: snapshot.parent,
    DiffID: snapshot.diffId,
    Blob: snapshot.blob,
    BlobPresent: snapshot.blobPresent,
    Size: snapshot.bytes,
    Files: snapshot.inodes,
    Created: rfc3339(snapshot.created),
    Directory: snapshot.directory,
  };
}

function parseConfig(bytes: Uint8Array, id: string): ImageConfig {
  try {
    return JSON.parse(Buffer.from(bytes).toString("utf8")) as ImageConfig;
  } catch (error) {
    throw new CorruptDataError(`inspect ${id}: its configuration is not JSON`, { cause: error });
  }
}

function describeConfig(config: Readonly<Record<string, unknown>>): object {
  const entries = Object.entries({ ...CONFIG_DEFAULTS, ...config }).map(([name, value]) => {
    const isMap = MAP_FIELDS.has(name) && typeof value === "object" && value !== null;
    return [name, isMap ? new Map(Object.entries(value)) : value];
  });
  return Object.fromEntries(entries);
}

/** The object that stands for a view. */
export function describeView(view: View | undefined): object {
  if (view === undefined) throw new NotFoundError("inspect: the daemon sent no view");
  return {
    Id: view.id,
    Name: view.name,
    Image: familiarName(view.image),
    ImageID: view.imageId,
    ChainID: view.chainId,
    ReadOnly: view.readOnly,
    Mounted: view.mounted,
    IO: view.io,
    IOInUse: view.ioInUse,
    Restart: view.restart,
    UIDMap: view.uidMaps,
    GIDMap: view.gidMaps,
    Target: view.target,
    Created: rfc3339(view.created),
    UpperDir: view.upperDir,
    UpperBytes: view.upperBytes,
    UpperInodes: view.upperInodes,
  };
}
