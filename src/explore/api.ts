/** The questions that the page asks. */

import type { VarveClient } from "../client/client.js";
import { parseMetrics } from "../client/metric-samples.js";
import { display } from "../system/bytes.js";
import { InvalidArgumentError, NotFoundError } from "../system/errors.js";
import { compareSubjects } from "./comparison.js";
import { readContent } from "./file-content.js";
import { type Entry, pathOf, type Step, type TreeNode } from "./merged-tree.js";
import {
  differenceMessages,
  type LiveMessage,
  type SubjectMessage,
  stepMessage,
  treeMessage,
} from "./messages.js";
import { findView, readChanges, readSubject, type Subject } from "./subject.js";
import { diffLines } from "./text-diff.js";

/** A live view's list is cut here; its length is told. */
const MAX_LIVE_CHANGES = 500;

/** Answers for the subjects of one run. */
export class ExploreApi {
  readonly #client: VarveClient;
  readonly #privileged: boolean;
  readonly #subjects: Subject[];

  constructor(client: VarveClient, privileged: boolean, subjects: readonly Subject[]) {
    this.#client = client;
    this.#privileged = privileged;
    this.#subjects = [...subjects];
  }

  /**
   * The answer to `question` ("tree", "content" …) as a value for JSON.
   *
   * @throws NotFoundError no such question, subject, node or layer
   * @throws InvalidArgumentError a parameter is no number
   */
  async answer(question: string, parameters: URLSearchParams): Promise<unknown> {
    switch (question) {
      case "subjects":
        return this.#subjects.map(describe);
      case "tree":
        return treeMessage(this.#subject(parameters));
      case "refresh":
        return this.#refresh(parameters);
      case "history":
        return this.#node(parameters).steps.map(stepMessage);
      case "content":
        return this.#content(parameters, numberOf(parameters, "layer"));
      case "diff":
        return this.#diff(parameters);
      case "compare":
        return this.#compare();
      case "live":
        return this.#live(this.#subject(parameters));
      default:
        throw new NotFoundError(`explore: no question "${question}"`);
    }
  }

  #subject(parameters: URLSearchParams): Subject {
    const subject = this.#subjects[numberOf(parameters, "subject")];
    if (subject === undefined) throw new NotFoundError("explore: no such subject");
    return subject;
  }

  #node(parameters: URLSearchParams): TreeNode {
    const node = this.#subject(parameters).tree.nodes[numberOf(parameters, "node")];
    if (node === undefined) throw new NotFoundError("explore: no such node");
    return node;
  }

  /** A view's tree as it is now. */
  async #refresh(parameters: URLSearchParams): Promise<unknown> {
    const { name } = this.#subject(parameters);
    const subject = await readSubject(this.#client, name, this.#privileged);
    this.#subjects[numberOf(parameters, "subject")] = subject;
    return treeMessage(subject);
  }

  #content(parameters: URLSearchParams, layer: number) {
    const node = this.#node(parameters);
    const step = stepAt(node, layer);
    const { directories } = this.#subject(parameters).layers[step.layer]!;
    return readContent(directories, pathOf(node), step.entry);
  }

  #diff(parameters: URLSearchParams) {
    const from = this.#content(parameters, numberOf(parameters, "from"));
    const to = this.#content(parameters, numberOf(parameters, "to"));
    const lines = diffLines(from.text, to.text);
    return { form: to.form, lines, isCut: from.isCut || to.isCut };
  }

  #compare() {
    const [left, right] = this.#subjects;
    if (left === undefined || right === undefined) {
      throw new NotFoundError("explore: there is nothing to compare with");
    }
    return differenceMessages(compareSubjects(left, right));
  }

  async #live(subject: Subject): Promise<LiveMessage> {
    const view = subject.kind === "view" ? await findView(this.#client, subject.name) : undefined;
    if (view === undefined) throw new NotFoundError(`explore ${subject.name}: no such view`);
    const changes = await readChanges(this.#client, view.id);
    return {
      mounted: view.mounted,
      total: changes.length,
      bytes: Number(view.upperBytes),
      changes: changes
        .slice(0, MAX_LIVE_CHANGES)
        .map(({ kind, path }) => ({ kind, path: display(path) })),
      operations: await this.#operations(view.name),
    };
  }

  async #operations(view: string): Promise<Record<string, number>> {
    const samples = parseMetrics((await this.#client.metrics()).text);
    const own = samples.filter(
      ({ name, labels }) => name === "varve_view_requests_total" && labels.view === view,
    );
    return Object.fromEntries(own.map(({ labels, value }) => [labels.operation ?? "", value]));
  }
}

function describe({ name, kind, imageId }: Subject): SubjectMessage {
  return { name, kind, imageId };
}

function stepAt(node: TreeNode, layer: number): Step & { readonly entry: Entry } {
  const step = node.steps.find((candidate) => candidate.layer === layer);
  if (step?.entry === undefined) throw new NotFoundError("explore: not in that layer");
  return { ...step, entry: step.entry };
}

function numberOf(parameters: URLSearchParams, name: string): number {
  const text = parameters.get(name) ?? "";
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError(`explore: ${name} wants a number`);
  return Number(text);
}
