/** Mounting: a new view of an image, or an existing view again. */

import { TRANSIENT_LABEL } from "../../metadata/labels.js";
import type { IoMode, RestartPolicy, ViewRow } from "../../metadata/view-table.js";
import type { RegistryAccess } from "../../registry/access.js";
import { CancelledError, InvalidArgumentError, UnsupportedError } from "../../system/errors.js";
import type { IdMaps } from "../../views/id-maps.js";
import type { MountWishes } from "../../views/view-requests.js";
import type { Core } from "../core.js";
import type { ProgressEvent } from "../progress-stream.js";
import { type PullPolicy, pullForUse } from "./pull-image.js";
import { withLease } from "./transient-lease.js";
import { type UnpackedImage, unpackResolved } from "./unpack-image.js";

/** What to mount; empty strings mean "not given". */
export interface MountRequest {
  readonly image: string;
  readonly name: string;
  readonly target: string;
  readonly readOnly: boolean;
  readonly platform: string;
  /** When to ask a registry for the image of a new view. */
  readonly pull: PullPolicy;
  readonly access: RegistryAccess;
  readonly io: IoMode | undefined;
  readonly restart: RestartPolicy | undefined;
  /** Of a new view: whom its owners are shown as. */
  readonly idMaps?: IdMaps | undefined;
  /** For somebody without the daemon's rights: set-id programs and devices of a new view have no effect. */
  readonly isForGuest?: boolean;
  readonly onProgress?: ((event: ProgressEvent) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Mounts. When a new view cannot be mounted it is removed again: nothing is left behind but the
 * unpacked image.
 *
 * @throws UnsupportedError mapped owners, without root
 * @throws what `pullForUse`, `unpackResolved`, `Views.prepare` and `Views.mount` throw
 */
export async function mountView(core: Core, request: MountRequest): Promise<ViewRow> {
  const target = request.target === "" ? undefined : request.target;
  if (request.idMaps !== undefined) checkMappable(core, request);
  if (request.image === "") return mountAgain(core, request, target);
  const name = request.name === "" ? undefined : request.name;
  // Before minutes of unpacking, not after.
  if (name !== undefined) core.views.checkNewName(name);
  return withLease(core.database, [], async (lease) => {
    const image = await pullForUse(core, { ...request, reference: request.image, lease });
    // Of an image that is unpacked there is nothing to tell, and its layers may be a hundred.
    const top = image.chainIds.at(-1);
    const isUnpacked = top !== undefined && core.snapshots.has(top);
    const options = isUnpacked ? { signal: request.signal } : request;
    return unpackResolved(core, image, options, (unpacked) =>
      mountNew(core, request, unpacked, name, target),
    );
  });
}

function checkMappable(core: Core, { image, name }: MountRequest): void {
  if (image === "") {
    throw new InvalidArgumentError(
      `mount view ${name}: its owners are mapped when it is made; make another view with --uidmap`,
    );
  }
  if (!core.machine.privileged) {
    throw new UnsupportedError(
      "mount with --uidmap: an ordinary user's daemon keeps no owners on disk that could be mapped; use a daemon of root's",
    );
  }
}

async function mountNew(
  core: Core,
  request: MountRequest,
  { image, chainId }: UnpackedImage,
  name: string | undefined,
  target: string | undefined,
): Promise<ViewRow> {
  const view = await core.views.prepare({
    name,
    image: image.reference,
    imageId: image.id,
    manifestDigest: image.manifestDescriptor.digest,
    chainId,
    readOnly: request.readOnly,
    io: request.io,
    restart: request.restart,
    isForGuest: request.isForGuest === true,
    idMaps: request.idMaps,
    // Until it is mounted: of a mount that a crash cuts short nothing is left, and its name is free.
    isTransient: true,
  });
  try {
    await core.views.mount(view.id, target);
    // Nobody would know that it is there.
    if (request.signal?.aborted === true) throw new CancelledError("mount: cancelled");
    return settle(core, view.id);
  } catch (error) {
    await core.views.remove(view.id, true);
    throw error;
  }
}

/** The view is the user's from here on, durably. */
function settle(core: Core, id: string): ViewRow {
  const { [TRANSIENT_LABEL]: _, ...labels } = core.views.get(id).labels;
  core.database.views.setLabels(id, labels);
  const view = core.views.get(id);
  const { name, image, imageId, target } = view;
  for (const action of ["create", "mount"]) {
    core.events.publish("view", action, id, { name, image, imageId, target });
  }
  // Lines about what goes on in it name the view; this one, the request that mounted it, too.
  core.log.info(`view ${name} (${id}) mounted on ${target}`);
  return view;
}

/** Mounts a view where it was mounted last. @throws what `Views.mount` throws */
export function remountView(core: Core, { id, readOnly }: ViewRow): Promise<ViewRow> {
  return mountAgain(core, { name: id, readOnly }, undefined);
}

/** What counts when there is a view already. */
type AgainRequest = Pick<MountRequest, "name" | "readOnly" | "onProgress" | "signal"> & MountWishes;

async function mountAgain(
  core: Core,
  request: AgainRequest,
  target: string | undefined,
): Promise<ViewRow> {
  if (request.name === "") {
    throw new InvalidArgumentError("mount: name an image, or a view to mount again");
  }
  const view = core.views.get(request.name);
  if (request.readOnly && !view.readOnly) {
    throw new InvalidArgumentError(
      `mount view ${view.name}: it is writable, which cannot change; make a read-only view of ${view.image}`,
    );
  }
  // Snapshots can always be made again; what was written is in the upper directory.
  if (view.chainId !== undefined && !core.snapshots.has(view.chainId)) {
    const image = await core.images.resolveManifest(view.manifestDigest);
    return unpackResolved(core, image, request, () => core.views.mount(view.id, target, request));
  }
  return core.views.mount(view.id, target, request);
}
