/**
 * docker's change instructions (`commit --change`): Dockerfile lines that alter an image's config.
 *
 * @see Dockerfile reference; the set is that of docker commit
 */

import path from "node:path";
import { InvalidArgumentError } from "../system/errors.js";
import { parseHealthcheck } from "./change-health.js";
import { expandWord, splitWords, type Variables } from "./change-words.js";
import type { ContainerConfig } from "./manifest.js";

/** A config while it is being changed. */
type Draft = { -readonly [K in keyof ContainerConfig]: ContainerConfig[K] };

/** One instruction's work on the config. */
type Apply = (draft: Draft, text: string, state: State) => void;

/** What one instruction leaves for the next. */
type State = { isCmdSet: boolean };

const DEFAULT_SHELL = ["/bin/sh", "-c"] as const;
const NOT_IN_ONBUILD = ["ONBUILD", "FROM", "MAINTAINER"];

const INSTRUCTIONS: Readonly<Record<string, Apply>> = {
  CMD(draft, text, state) {
    draft.Cmd = commandOf(draft, text);
    state.isCmdSet = true;
  },
  ENTRYPOINT(draft, text, state) {
    draft.Entrypoint = commandOf(draft, text);
    // As docker: the base's arguments belonged to the base's entry point.
    if (!state.isCmdSet) delete draft.Cmd;
  },
  ENV(draft, text) {
    const variables = variablesOf(draft);
    for (const [name, value] of pairsOf("ENV", text, variables)) {
      draft.Env = withVariable(draft.Env ?? [], name, value);
    }
  },
  EXPOSE(draft, text) {
    const ports = splitWords(text).flatMap((word) => portsOf(expandWord(word, variablesOf(draft))));
    const added = ports.map((port) => [port, {}] as const);
    draft.ExposedPorts = { ...draft.ExposedPorts, ...Object.fromEntries(added) };
  },
  HEALTHCHECK(draft, text) {
    draft.Healthcheck = parseHealthcheck(text, (command) => {
      const list = jsonList(command);
      return list === undefined ? ["CMD-SHELL", command] : ["CMD", ...list];
    });
  },
  LABEL(draft, text) {
    const labels = pairsOf("LABEL", text, variablesOf(draft));
    draft.Labels = { ...draft.Labels, ...Object.fromEntries(labels) };
  },
  ONBUILD(draft, text) {
    const trigger = /^\S+/.exec(text)![0].toUpperCase();
    if (NOT_IN_ONBUILD.includes(trigger)) {
      throw new InvalidArgumentError(`ONBUILD ${text}: ${trigger} cannot be a trigger`);
    }
    draft.OnBuild = [...(draft.OnBuild ?? []), text];
  },
  STOPSIGNAL(draft, text) {
    const signal = expandWord(text, variablesOf(draft)).toUpperCase();
    if (!/^(?:(?:SIG)?[A-Z][A-Z0-9]*(?:[+-][0-9]{1,2})?|[1-9]|[1-5][0-9]|6[0-4])$/.test(signal)) {
      throw new InvalidArgumentError(`STOPSIGNAL ${text}: want a name such as SIGTERM, or 1 to 64`);
    }
    draft.StopSignal = signal;
  },
  USER(draft, text) {
    draft.User = singleWord("USER", text, draft);
  },
  VOLUME(draft, text) {
    const words =
      jsonList(text) ?? splitWords(text).map((word) => expandWord(word, variablesOf(draft)));
    if (words.some((word) => word.trim() === "")) {
      throw new InvalidArgumentError(`VOLUME ${text}: a path is empty`);
    }
    const added = words.map((word) => [word, {}] as const);
    draft.Volumes = { ...draft.Volumes, ...Object.fromEntries(added) };
  },
  WORKDIR(draft, text) {
    const directory = expandWord(text, variablesOf(draft));
    draft.WorkingDir = path.posix.resolve("/", draft.WorkingDir ?? "/", directory);
  },
};

/**
 * Applies change instructions in order to a copy of a config. An instruction's name may be in any
 * case, and be followed by "=" as podman allows.
 *
 * @throws InvalidArgumentError an unknown or malformed instruction
 */
export function applyChanges(config: ContainerConfig, changes: readonly string[]): ContainerConfig {
  const draft: Draft = { ...config };
  const state: State = { isCmdSet: false };
  for (const change of changes) {
    const [, name = "", text = ""] = /^\s*([A-Za-z]+)(?:\s+|=|$)([\s\S]*?)\s*$/.exec(change) ?? [];
    const key = name.toUpperCase();
    const apply = Object.hasOwn(INSTRUCTIONS, key) ? INSTRUCTIONS[key] : undefined;
    if (apply === undefined) {
      throw new InvalidArgumentError(
        `change ${JSON.stringify(change)}: unknown instruction; known are ` +
          Object.keys(INSTRUCTIONS).join(", "),
      );
    }
    if (text === "") {
      throw new InvalidArgumentError(`change ${JSON.stringify(change)}: ${key} needs an argument`);
    }
    try {
      apply(draft, text, state);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new InvalidArgumentError(`change ${JSON.stringify(change)}: ${reason}`, { cause });
    }
  }
  return draft;
}

/** The exec form (a JSON list of strings) as it is; anything else goes to the shell. */
function commandOf(draft: Draft, text: string): readonly string[] {
  return jsonList(text) ?? [...(draft.Shell ?? DEFAULT_SHELL), text];
}

/** What begins with "[" and is no JSON is a shell command, `[ -f x ] && y`, to docker and to us. */
function jsonList(text: string): string[] | undefined {
  if (!text.startsWith("[")) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    const isList = Array.isArray(value) && value.every((item) => typeof item === "string");
    return isList ? (value as string[]) : undefined;
  } catch {
    return undefined;
  }
}

/** `NAME=value …`, or the old `NAME the whole rest`. */
function pairsOf(
  instruction: string,
  text: string,
  variables: Variables,
): [name: string, value: string][] {
  const words = splitWords(text);
  if (!words[0]!.includes("=")) {
    const [, name, rest] = /^(\S+)\s+([\s\S]+)$/.exec(text) ?? [];
    if (name === undefined || rest === undefined) {
      throw new InvalidArgumentError(`${instruction} ${text}: want NAME=value`);
    }
    return [[expandWord(name, variables), expandWord(rest, variables)]];
  }
  return words.map((word) => {
    const equals = word.indexOf("=");
    const name = expandWord(word.slice(0, Math.max(equals, 0)), variables);
    if (equals < 0 || name === "") {
      throw new InvalidArgumentError(`${instruction} ${text}: ${word}: want NAME=value`);
    }
    return [name, expandWord(word.slice(equals + 1), variables)];
  });
}

function variablesOf(draft: Draft): Variables {
  const values = new Map((draft.Env ?? []).map((entry) => splitVariable(entry)));
  return (name) => values.get(name);
}

function splitVariable(entry: string): [name: string, value: string] {
  const equals = entry.indexOf("=");
  return equals < 0 ? [entry, ""] : [entry.slice(0, equals), entry.slice(equals + 1)];
}

/** A variable keeps its place when it gets a new value. */
function withVariable(env: readonly string[], name: string, value: string): string[] {
  const entry = `${name}=${value}`;
  const position = env.findIndex((old) => splitVariable(old)[0] === name);
  return position < 0 ? [...env, entry] : env.with(position, entry);
}

/** "80", "53/udp" or "8000-8010/tcp", as the keys of ExposedPorts. */
function portsOf(text: string): string[] {
  const match = /^([0-9]{1,5})(?:-([0-9]{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (match === null || first < 1 || last > 65535 || first > last) {
    throw new InvalidArgumentError(`EXPOSE ${text}: want PORT[-PORT][/tcp|udp|sctp]`);
  }
  const protocol = (match[3] ?? "tcp").toLowerCase();
  return Array.from({ length: last - first + 1 }, (_, step) => `${first + step}/${protocol}`);
}

function singleWord(instruction: string, text: string, draft: Draft): string {
  const words = splitWords(text);
  if (words.length === 1) return expandWord(words[0]!, variablesOf(draft));
  throw new InvalidArgumentError(`${instruction} ${text}: want exactly one argument`);
}
