/** A worker thread's own side: answers the calls of `WorkerHost`. */

import { parentPort } from "node:worker_threads";
import { FailedPreconditionError } from "../system/errors.js";
import { type FromWorker, type ToWorker, toPlainError } from "./worker-messages.js";

/** What a method gets beside its argument. */
export interface WorkerCall {
  /** Aborted when the caller lost interest. */
  readonly signal: AbortSignal;
  /** Sends an event (structured-clonable) to the caller. */
  emit(event: unknown): void;
}

/** A method by name; it validates nothing, since both sides are ours. */
export type WorkerMethods = Readonly<
  Record<string, (argument: never, call: WorkerCall) => unknown>
>;

/**
 * Serves `methods` until the thread ends. Returns a function that sends an event that belongs to no
 * call.
 *
 * @throws FailedPreconditionError not called in a worker thread
 */
export function serveWorker(methods: WorkerMethods): (event: unknown) => void {
  const port = parentPort;
  if (port === null) throw new FailedPreconditionError("serve calls: this is no worker thread");
  const controllers = new Map<number, AbortController>();
  const send = (message: FromWorker) => port.postMessage(message);

  const answer = async (call: number, method: string, argument: unknown): Promise<void> => {
    const controller = new AbortController();
    controllers.set(call, controller);
    try {
      const run = methods[method];
      if (run === undefined) throw new FailedPreconditionError(`worker has no method ${method}`);
      const emit = (event: unknown) => send({ call, event });
      const result = await run(argument as never, { signal: controller.signal, emit });
      send({ call, result });
    } catch (error) {
      send({ call, error: toPlainError(error) });
    } finally {
      controllers.delete(call);
    }
  };

  port.on("message", (message: ToWorker) => {
    if ("cancel" in message) controllers.get(message.cancel)?.abort();
    else void answer(message.call, message.method, message.argument);
  });
  return (event) => send({ call: 0, event });
}
