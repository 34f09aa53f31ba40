/** Asking the server. The page's own path has the token. */

import type {
  DifferenceMessage,
  LiveMessage,
  StepMessage,
  SubjectMessage,
  TreeMessage,
} from "../../src/explore/messages.js";

/** What `diff` answers. */
export interface DiffMessage {
  readonly form: string;
  readonly lines: readonly { readonly sign: " " | "-" | "+"; readonly text: string }[];
  readonly isCut: boolean;
}

/** What `content` answers. */
export interface ContentMessage {
  readonly form: "text" | "hex" | "target" | "none";
  readonly text: string;
  readonly isCut: boolean;
}

interface Answers {
  subjects: SubjectMessage[];
  tree: TreeMessage;
  refresh: TreeMessage;
  history: StepMessage[];
  content: ContentMessage;
  diff: DiffMessage;
  compare: DifferenceMessage[];
  live: LiveMessage;
}

/** The answer to a question; an error has the server's words. */
export async function ask<K extends keyof Answers>(
  question: K,
  parameters: Readonly<Record<string, number>> = {},
): Promise<Answers[K]> {
  const query = new URLSearchParams(
    Object.entries(parameters).map(([name, value]) => [name, String(value)]),
  );
  const response = await fetch(`api/${question}?${query}`);
  if (!response.ok) throw new Error((await response.text()).trim());
  return (await response.json()) as Answers[K];
}
