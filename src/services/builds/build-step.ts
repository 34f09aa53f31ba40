/** The steps of a build: what they are, what the history calls them, and what they are remembered by. */

import { digestOf } from "../../content/digest.js";
import type { ImageConfig } from "../../images/manifest.js";
import { InvalidArgumentError } from "../../system/errors.js";
import type { CopySource } from "./copy-sources.js";

/** Runs a command in a view. */
export type RunStep = {
  readonly kind: "run";
  /** With `shell` one text. */
  readonly args: readonly string[];
  readonly shell: boolean;
};

/** Copies files of the host into a view. */
export type CopyStep = {
  readonly kind: "copy";
  readonly sources: readonly CopySource[];
  /** Absolute in the image; a directory when it ends with a slash. */
  readonly destination: string;
  /** USER[:GROUP]; empty: root. */
  readonly owner: string;
};

/** Changes the configuration alone; WORKDIR makes its directory, too. */
export type ChangeStep = { readonly kind: "change"; readonly change: string };

/** One step. */
export type BuildStep = RunStep | CopyStep | ChangeStep;

const DEFAULT_SHELL = ["/bin/sh", "-c"];

/** The command that a run step starts. */
export function commandOf(step: RunStep, config: ImageConfig): string[] {
  if (!step.shell) return [...step.args];
  return [...(config.config.Shell ?? DEFAULT_SHELL), ...step.args];
}

/** A step as it stands in the history: without paths of the host, the same on every machine. */
export function describeStep(step: BuildStep, config: ImageConfig): string {
  switch (step.kind) {
    case "run":
      return step.shell
        ? `RUN ${commandOf(step, config).join(" ")}`
        : `RUN ${JSON.stringify(step.args)}`;
    case "copy": {
      const owner = step.owner === "" ? "" : `--chown=${step.owner} `;
      const names = step.sources.map((source) => source.name).join(" ");
      return `COPY ${owner}${names} ${step.destination}`;
    }
    case "change":
      return step.change.trim();
  }
}

/** What a step's image depends on beside the step. */
export type StepCircumstances = {
  /** The parent's manifest: it says which layers, in which compression. */
  readonly parent: string;
  readonly compression: string;
  readonly sourceDateEpoch: number | undefined;
  readonly author: string;
  readonly network: string;
};

/** The key under which a step's image is remembered. */
export function stepKey(step: BuildStep, where: StepCircumstances): string {
  const { parent, compression, author } = where;
  const epoch = where.sourceDateEpoch ?? null;
  // What may be fetched differs with the network; a copy or a change knows of none.
  const network = step.kind === "run" ? where.network : null;
  return digestOf(
    Buffer.from(JSON.stringify([1, parent, compression, epoch, author, network, contentOf(step)])),
  );
}

function contentOf(step: BuildStep): unknown {
  switch (step.kind) {
    case "run":
      return ["run", step.shell, step.args];
    case "copy": {
      const sources = step.sources.map(({ name, digest, isDirectory }) => [
        ...[name, digest, isDirectory],
      ]);
      return ["copy", sources, step.destination, step.owner];
    }
    case "change":
      return ["change", step.change.trim()];
  }
}

/** The directory that a WORKDIR instruction names; undefined for other instructions. */
export function isWorkdir(step: ChangeStep): boolean {
  return /^\s*WORKDIR\s/i.test(step.change);
}

/** @throws InvalidArgumentError a step that says nothing */
export function checkRun(step: RunStep): void {
  const [first = ""] = step.args;
  const isPlain = step.args.every((text) => !text.includes("\0"));
  if (first !== "" && isPlain && (!step.shell || step.args.length === 1)) return;
  throw new InvalidArgumentError("build step: want a command to run");
}
