/**
 * Builds: an image from a view for each step.
 *
 * The view of a step is made for it and removed with it; views of the user's, and their state, are
 * never touched. The image of a step is remembered under its parent and its instruction, and kept
 * (see the table of build steps) until it is pruned; it has no name, unless it is the last.
 */

import { randomBytes } from "node:crypto";
import { buildCommit, commitTime } from "../../images/commit-config.js";
import type { ResolvedImage } from "../../images/image-store.js";
import { normalizeReference } from "../../images/reference.js";
import type { Digest } from "../../metadata/digest.js";
import type { ViewRow } from "../../metadata/view-table.js";
import type { RegistryAccess } from "../../registry/access.js";
import { CancelledError, InvalidArgumentError } from "../../system/errors.js";
import type { Core } from "../core.js";
import type { ProgressEvent } from "../progress-stream.js";
import {
  type CommitResult,
  checkCompression,
  commitUnnamed,
  writeImage,
} from "../use-cases/commit-view.js";
import { type PullPolicy, pullForUse } from "../use-cases/pull-image.js";
import { withLease } from "../use-cases/transient-lease.js";
import { unpackResolved } from "../use-cases/unpack-image.js";
import {
  type BuildStep,
  type ChangeStep,
  commandOf,
  describeStep,
  isWorkdir,
  stepKey,
} from "./build-step.js";
import { copyIntoView } from "./copy-into-view.js";
import { runInView } from "./run-in-view.js";
import { withDirectory } from "./view-directory.js";

/** A build; empty strings mean "not given". */
export interface BuildRequest {
  readonly parent: string;
  readonly steps: readonly BuildStep[];
  /** Of the last image. */
  readonly reference: string;
  readonly noCache: boolean;
  readonly network: "host" | "none";
  readonly platform: string;
  readonly pull: PullPolicy;
  readonly access: RegistryAccess;
  readonly compression: string;
  readonly sourceDateEpoch: number | undefined;
  readonly author: string;
  readonly observer: BuildObserver;
  readonly signal: AbortSignal;
}

/** Is told how a build goes. */
export interface BuildObserver {
  onProgress(event: ProgressEvent): void;
  onStarted(number: number, instruction: string): void;
  onOutput(chunk: Buffer): Promise<void>;
  onFinished(number: number, id: Digest, isCached: boolean): void;
}

/** What a step made. */
type StepResult = Omit<CommitResult, "descriptor"> & { readonly reference: string };

/**
 * Runs the steps, one after the other.
 *
 * @throws NotFoundError, InvalidArgumentError no such parent, platform or source; a malformed step
 * @throws FailedPreconditionError a command failed, or runc is not installed
 * @throws CancelledError
 */
export async function commitSteps(core: Core, request: BuildRequest): Promise<StepResult> {
  const { parent, reference } = request;
  if (request.steps.length === 0) throw new InvalidArgumentError("build: name at least one step");
  checkCompression(request.compression);
  const name = reference === "" ? undefined : normalizeReference(reference);
  const { onProgress } = request.observer;
  return withLease(core.database, [], async (lease) => {
    const base = await pullForUse(core, { ...request, reference: parent, onProgress, lease });
    core.images.touch(base.id);
    let image = base;
    let made: CommitResult | undefined;
    for (const [position, step] of request.steps.entries()) {
      made = await new StepRun(core, request, image, lease).run(step, position + 1);
      image = await core.images.resolveManifest(made.digest);
    }
    const { descriptor, ...result } = made!;
    await core.images.create(name, descriptor);
    return { ...result, reference: name ?? "" };
  });
}

class StepRun {
  readonly #core: Core;
  readonly #request: BuildRequest;
  readonly #base: ResolvedImage;
  readonly #lease: string;

  constructor(core: Core, request: BuildRequest, base: ResolvedImage, lease: string) {
    this.#core = core;
    this.#request = request;
    this.#base = base;
    this.#lease = lease;
  }

  async run(step: BuildStep, number: number): Promise<CommitResult> {
    const { signal, observer, noCache } = this.#request;
    if (signal.aborted) throw new CancelledError("build: cancelled");
    const instruction = describeStep(step, this.#base.config);
    observer.onStarted(number, instruction);
    const parent = this.#base.manifestDescriptor.digest;
    const key = stepKey(step, { ...this.#request, parent });
    const known = noCache ? undefined : await this.#recall(key);
    const made = known ?? (await this.#make(step, instruction, key));
    observer.onFinished(number, made.id, known !== undefined);
    return made;
  }

  /** The image that was made by this step before, if all that is needed of it is here. */
  async #recall(key: string): Promise<CommitResult | undefined> {
    const { database, content, images } = this.#core;
    const row = database.buildSteps.get(key);
    // From here on the lease keeps it, even if the memory of the step is pruned.
    if (row === undefined || !content.protect(row.manifestDigest, this.#lease)) return undefined;
    try {
      const image = await images.resolveManifest(row.manifestDigest);
      if (!image.layers.every((layer) => content.has(layer.digest))) return undefined;
      database.buildSteps.touch(key);
      return {
        id: image.id,
        digest: row.manifestDigest,
        descriptor: image.manifestDescriptor,
        layer: undefined,
        diffId: undefined,
        chainId: image.chainIds.at(-1),
        warnings: [],
      };
    } catch {
      // Damaged: make it again.
      return undefined;
    }
  }

  async #make(step: BuildStep, instruction: string, key: string): Promise<CommitResult> {
    const keep = async (made: CommitResult) => {
      this.#core.content.protect(made.digest, this.#lease);
      this.#core.database.buildSteps.put(key, made.digest);
      return made;
    };
    const changes = step.kind === "change" ? [step.change] : [];
    if (step.kind === "change" && !isWorkdir(step)) {
      return keep(await this.#change(changes, instruction));
    }
    return this.#inView(async (view) => {
      await this.#work(step, view, instruction);
      const { compression, sourceDateEpoch, author, signal, observer } = this.#request;
      const commit = {
        ...{ compression, sourceDateEpoch, author, signal, changes },
        name: view.id,
        message: "",
        compressionLevel: 0,
        squashAll: false,
        omitHistory: false,
        pause: true,
        format: "",
        annotations: [],
        createdBy: instruction,
        onProgress: observer.onProgress,
      };
      return commitUnnamed(this.#core, commit, keep);
    });
  }

  /** A new configuration over the same layers: no view is needed. */
  async #change(changes: readonly string[], createdBy: string): Promise<CommitResult> {
    const { author, sourceDateEpoch } = this.#request;
    const base = this.#base;
    const document = { base, changes, createdBy, ...(author === "" ? {} : { author }) };
    // Before anything is written: the instruction may be malformed.
    buildCommit({ ...document, created: commitTime({ base, sourceDateEpoch }) });
    const lease = this.#lease;
    return writeImage(this.#core, { document, sourceDateEpoch, layer: undefined, lease });
  }

  async #inView<R>(work: (view: ViewRow) => Promise<R>): Promise<R> {
    const { views } = this.#core;
    const { signal, observer } = this.#request;
    const options = { signal, onProgress: observer.onProgress };
    return unpackResolved(this.#core, this.#base, options, async ({ image, chainId }) => {
      const view = await views.prepare({
        name: `build-${randomBytes(6).toString("hex")}`,
        image: image.id,
        imageId: image.id,
        manifestDigest: image.manifestDescriptor.digest,
        chainId,
        readOnly: false,
        isTransient: true,
      });
      try {
        return await work(await views.mount(view.id));
      } finally {
        await views.remove(view.id, true);
      }
    });
  }

  async #work(step: BuildStep, view: ViewRow, what: string): Promise<void> {
    const { network, observer, signal } = this.#request;
    const { config } = this.#base;
    if (step.kind === "copy") return copyIntoView(view.target, step);
    if (step.kind === "change") return this.#makeWorkdir(step, view);
    const command = commandOf(step, config);
    const { state } = this.#core.paths;
    const { onOutput } = observer;
    const where = { id: view.id, state, root: view.target };
    await runInView({ ...where, config, command, what, network, onOutput, signal });
  }

  /** As docker: the directory is there from now on. */
  async #makeWorkdir(step: ChangeStep, view: ViewRow): Promise<void> {
    const { config } = this.#base;
    const changed = buildCommit({ base: this.#base, changes: [step.change] });
    const { WorkingDir = "/" } = (
      JSON.parse(changed.configBytes.toString()) as { config: { WorkingDir?: string } }
    ).config;
    if (WorkingDir === config.config.WorkingDir) return;
    await withDirectory(view.target, WorkingDir, async () => undefined);
  }
}
