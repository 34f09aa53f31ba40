/** What is asked of views, and what is refused. */

import type { Digest } from "../content/digest.js";
import { GUEST_LABEL, type Labels, TRANSIENT_LABEL } from "../metadata/labels.js";
import type { IoMode, RestartPolicy, ViewRow } from "../metadata/view-table.js";
import { AlreadyExistsError, FailedPreconditionError } from "../system/errors.js";
import { type IdMaps, idMapLabels } from "./id-maps.js";

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
  /** Made for somebody without the daemon's rights: set-id programs and devices in it have no effect. */
  readonly isForGuest?: boolean;
  /** Whom its owners are shown as. */
  readonly idMaps?: IdMaps | undefined;
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

/** True for a view that belongs to work that is under way. */
export function isTransient(view: ViewRow): boolean {
  return view.labels[TRANSIENT_LABEL] !== undefined;
}

/** True for a view made for somebody without the daemon's rights. */
export function isForGuest(view: ViewRow): boolean {
  return view.labels[GUEST_LABEL] !== undefined;
}

/** The labels that a new view has. */
export function labelsOf({ isTransient, isForGuest, idMaps }: NewView): Labels {
  return {
    ...idMapLabels(idMaps),
    ...(isTransient === true ? { [TRANSIENT_LABEL]: "true" } : {}),
    ...(isForGuest === true ? { [GUEST_LABEL]: "true" } : {}),
  };
}

/** For a new view whose name another one has. */
export function nameIsTaken(name: string): AlreadyExistsError {
  return new AlreadyExistsError(
    `create view ${JSON.stringify(name)}: the name is taken; remove that view with "varve rm ${name}" or choose another name`,
  );
}

/** For a mount of what is mounted. */
export function alreadyMounted({ name, target }: ViewRow): FailedPreconditionError {
  return new FailedPreconditionError(`mount view ${name}: it is already mounted on ${target}`);
}

/** For an unmount of what is not mounted. */
export function notMounted(name: string): FailedPreconditionError {
  return new FailedPreconditionError(`unmount view ${name}: it is not mounted`);
}

/** For a removal, without force, of what is mounted. */
export function stillMounted({ name, target }: ViewRow): FailedPreconditionError {
  return new FailedPreconditionError(
    `remove view ${name}: it is mounted on ${target}; unmount it first or use --force`,
  );
}
