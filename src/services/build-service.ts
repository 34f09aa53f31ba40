/** The build half of varve.v1: requests in, messages out. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { InvalidArgumentError } from "../system/errors.js";
import { type BuildStep, checkRun } from "./builds/build-step.js";
import { commitSteps } from "./builds/commit-steps.js";
import { readCopySource } from "./builds/copy-sources.js";
import { ownersOnly } from "./caller.js";
import { Channel } from "./channel.js";
import type { Core } from "./core.js";
import type {
  CommitStepRequest,
  CommitStepResponseSchema,
  BuildStep as StepMessage,
  Varve,
} from "./gen/varve/v1/varve_pb.js";
import type { CallContext, Handlers } from "./grpc-adapter.js";
import { toCommitted, toProgress } from "./messages.js";
import { isQuiet, type ProgressEvent } from "./progress-stream.js";
import { toAccess } from "./registry-service.js";
import { parsePolicy } from "./use-cases/pull-image.js";

type Response = MessageInitShape<typeof CommitStepResponseSchema>;

/** Handlers of the build methods. */
export function buildHandlers(core: Core): Pick<Handlers<typeof Varve>, "commitStep"> {
  return { commitStep: (request, context) => build(core, request, context) };
}

async function* build(
  core: Core,
  request: CommitStepRequest,
  context: CallContext,
): AsyncGenerator<Response> {
  const channel = new Channel<Response>();
  const running = run(core, request, context, channel).then(
    () => channel.end(),
    (error: unknown) => channel.end({ error }),
  );
  try {
    yield* channel;
  } finally {
    await running;
  }
}

async function run(
  core: Core,
  request: CommitStepRequest,
  context: CallContext,
  channel: Channel<Response>,
): Promise<void> {
  const { signal, caller } = context;
  if (request.steps.some(({ kind }) => kind !== "change")) {
    ownersOnly(caller, "build step", "RUN and COPY would work as the daemon; mount a view instead");
  }
  const { sourceDateEpoch } = request;
  const result = await commitSteps(core, {
    ...request,
    steps: await Promise.all(request.steps.map(toStep)),
    network: parseNetwork(request.network),
    pull: parsePolicy(request.pull, "missing"),
    access: toAccess(request.access, caller),
    sourceDateEpoch: sourceDateEpoch === undefined ? undefined : Number(sourceDateEpoch),
    observer: {
      onProgress: isQuiet(context) ? () => undefined : progressTo(channel),
      onStarted: (number, instruction) => void channel.push({ started: { number, instruction } }),
      onOutput: (output) => channel.push({ output }),
      onFinished: (number, id, cached) => void channel.push({ finished: { number, id, cached } }),
    },
    signal,
  });
  await channel.push({ image: toCommitted(result) });
}

const PROGRESS_INTERVAL_MS = 100;

/** Figures ten times a second, and each new action at once. */
function progressTo(channel: Channel<Response>): (event: ProgressEvent) => void {
  const sent = new Map<string, { action: string; atMs: number }>();
  return (event) => {
    const last = sent.get(event.id);
    const atMs = performance.now();
    const isSame = last?.action === event.action;
    if (isSame && atMs - last.atMs < PROGRESS_INTERVAL_MS) return;
    sent.set(event.id, { action: event.action, atMs });
    void channel.push({ progress: toProgress(event) });
  };
}

function parseNetwork(text: string): "host" | "none" {
  if (text === "" || text === "host") return "host";
  if (text === "none") return "none";
  throw new InvalidArgumentError(
    `build: unknown network ${JSON.stringify(text)}; choose host or none`,
  );
}

async function toStep(message: StepMessage): Promise<BuildStep> {
  const { kind, args, shell, destination, owner, change } = message;
  if (kind === "run") {
    const step = { kind, args, shell } as const;
    checkRun(step);
    return step;
  }
  if (kind === "copy") {
    return { kind, destination, owner, sources: await Promise.all(args.map(readCopySource)) };
  }
  if (kind === "change") return { kind, change };
  throw new InvalidArgumentError(
    `build: unknown kind of step ${JSON.stringify(kind)}; choose run, copy or change`,
  );
}
