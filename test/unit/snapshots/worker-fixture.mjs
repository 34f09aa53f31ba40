// A worker thread for worker-pool.test.ts, on the compiled server.
import { threadId } from "node:worker_threads";
import { serveWorker } from "../../../dist/snapshots/worker-server.js";
import { NotFoundError, SyscallError } from "../../../dist/system/errors.js";

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

serveWorker({
  echo: (value) => value,
  thread: async (ms) => {
    await sleep(ms);
    return threadId;
  },
  events: (count, call) => {
    for (let event = 0; event < count; event++) call.emit(event);
    return "done";
  },
  notFound: (name) => {
    throw new NotFoundError(`thing ${name}: not found`, { details: { name } });
  },
  syscall: () => {
    throw new SyscallError(28, "ENOSPC", "write", "/x", "No space left on device");
  },
  bug: () => {
    throw new TypeError("x is not a function");
  },
  untilCancelled: (_, call) =>
    new Promise((_, reject) => {
      call.signal.addEventListener("abort", () => reject(new NotFoundError("stopped")));
    }),
  crash: () => {
    setImmediate(() => {
      throw new Error("thread crashed");
    });
    return new Promise(() => undefined);
  },
  exit: () => process.exit(3),
});
