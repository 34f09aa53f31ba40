/**
 * Serves one mount: receives requests, has the file system answer them, sends the replies.
 *
 * A session lives on the thread that mounted it and is driven by the readiness of its descriptor.
 * Requests are handled one at a time and answered in place, or kept where they must wait. All sessions
 * of a thread share one set of buffers. So a thread must never touch, synchronously, a mount that it
 * serves itself: it would wait for its own reply.
 *
 * A session ends when the kernel says so (unmounted by anyone, or aborted) or by `close`. Then, and
 * only once, the file system's `destroy` and the owner's `onEnd` are called: at once, or when the
 * last deferred answer has come in.
 */

import { sep } from "node:path";
import { fuse, sys } from "../system/addon.js";
import { toBytes } from "../system/bytes.js";
import { MNT_DETACH, MNT_FORCE, UMOUNT_NOFOLLOW } from "../system/constants.js";
import { EINTR, EIO, ENODEV, ENOENT, ENOSYS, syscallError } from "../system/errno.js";
import { FailedPreconditionError, SyscallError } from "../system/errors.js";
import type { FuseChannel } from "../system/native.js";
import { TALLIED } from "../system/tally.js";
import {
  FUSE_INIT,
  FUSE_READ,
  FUSE_WRITE,
  IN_HEADER_BYTES,
  MAX_TRANSFER_BYTES,
} from "./constants.js";
import { type Exchange, NO_REPLY, type Outcome, Workspace } from "./exchange.js";
import { type FileSystem, LATER, type Result } from "./file-system.js";
import { KernelSide } from "./kernel-side.js";
import { awaitEnd, unusedCopies } from "./mount-copies.js";
import {
  findMount,
  flushMount,
  isOnTop,
  mountFuse,
  raiseReadAhead,
  unmountFuse,
} from "./mount-point.js";
import { type Agreement, agree, decodeInit } from "./negotiation.js";
import { Notifier } from "./notifier.js";
import { NO_ANSWER, OPERATIONS, type Operation } from "./operations.js";
import { Pause } from "./pause.js";
import { MalformedRequest, RefusedRequest } from "./request.js";
import { handleResent, isResent } from "./resent.js";
import type { Inheritance, SessionOptions } from "./session-options.js";
import { Turns } from "./turns.js";
import { Waiting } from "./waiting.js";
import { Warnings } from "./warnings.js";

/** Read-ahead in KiB: one request of the largest size, so that cold sequential reads cost fewest round trips. */
const READ_AHEAD_KIB = MAX_TRANSFER_BYTES / 1024;

/** Sessions of this thread. */
const serving = new Set<FuseSession>();
/** Buffers of this thread, made with its first session. */
let workspace: Workspace | undefined;

/** One served mount. See the file comment. */
export class FuseSession implements Exchange {
  readonly target: string;
  readonly fileSystem: FileSystem;
  readonly work: Workspace;
  /** Resolves when the session is over, after `onEnd`. Never rejects. */
  readonly ended: Promise<void>;
  /** Resolves when the kernel has said what it can: whether there is passthrough. False, too, when it never does. */
  readonly negotiated: Promise<boolean>;
  hasExtendedSetxattr = false;
  readonly notifier: Notifier;
  readonly #channel: FuseChannel;
  readonly #turns: Turns;
  readonly #options: SessionOptions;
  readonly #warnings: Warnings;
  /** "major:minor"; undefined if the mount was gone before it could be seen. */
  readonly #device: string | undefined;
  #agreement: Agreement | undefined;
  readonly #waiting = new Waiting();
  /** Of the reply that was put last. */
  #answered: Operation | undefined;
  #outcome = 0;
  readonly pause = new Pause(this.#waiting);
  #isOver = false;
  #resolveEnded: () => void = () => {};
  #resolveNegotiated: (hasPassthrough: boolean) => void = () => {};

  /**
   * Mounts `fileSystem` on `target` and starts to serve it on this thread. Returns when the mount is
   * visible; requests are answered from the next turn of the event loop on.
   *
   * @throws FailedPreconditionError the target is mounted already, or inside a mount of this thread
   * @throws NotFoundError, InvalidArgumentError, PermissionDeniedError, UnsupportedError, SyscallError
   *   see `mountFuse`
   */
  static mount(options: SessionOptions): FuseSession {
    const { target } = options;
    for (const session of serving) {
      if (target === session.target || target.startsWith(session.target + sep)) {
        throw new FailedPreconditionError(
          `mount ${target}: inside the mount ${session.target}, which this thread serves itself`,
        );
      }
    }
    const subtype = options.subtype ?? "varve";
    const channel = mountFuse({ ...options, subtype, source: options.source ?? subtype });
    return new FuseSession(options, channel);
  }

  /**
   * Goes on serving a mount whose session died, and answers what that left unanswered. The file system
   * must know the nodes that the kernel knows.
   *
   * @throws SyscallError the descriptor is no FUSE connection
   */
  static resume(options: SessionOptions, inheritance: Inheritance): FuseSession {
    const channel = fuse.fromDescriptor(inheritance.descriptor);
    const session = new FuseSession(options, channel);
    session.#adopt(inheritance.agreement);
    session.#resolveNegotiated(inheritance.agreement.hasPassthrough);
    void session.notifier.resend(session.#warnings);
    return session;
  }

  private constructor(options: SessionOptions, channel: FuseChannel) {
    this.#options = options;
    this.target = options.target;
    this.fileSystem = options.fileSystem;
    this.#warnings = new Warnings(options);
    this.#channel = channel;
    this.notifier = new Notifier(channel);
    this.#device = findMount(options.target)?.device;
    workspace ??= new Workspace();
    this.work = workspace;
    this.#turns = new Turns(channel, {
      turnee: {
        isOver: () => this.#isOver,
        serve: (received) => this.#serve(received),
        refused: (error) => this.#undelivered(error),
        ended: () => this.#end(),
      },
      work: workspace,
      quick: options.quickWakeUps === true,
      warnings: this.#warnings,
    });
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.negotiated = new Promise((resolve) => {
      this.#resolveNegotiated = resolve;
    });
    const started = channel.start(() => this.#turns.drain());
    if (started < 0) {
      channel.close();
      sys.umount2(toBytes(options.target), MNT_DETACH | UMOUNT_NOFOLLOW);
      throw syscallError(started, "epoll_ctl", "/dev/fuse");
    }
    serving.add(this);
  }

  /**
   * Unmounts. Without `force` it fails while anything uses the mount, in whichever mount namespace.
   * With it, what is dirty is written back, the mount detached, and every user left gets ENOTCONN.
   * Idempotent; resolves when the session is over.
   *
   * @throws FailedPreconditionError in use; it is mounted as before, or, where somebody began to use a
   *   copy of it at this moment, gone from here and served there until that ends
   * @throws PermissionDeniedError, SyscallError see `unmountFuse`
   */
  async unmount(force: boolean): Promise<void> {
    if (this.#isOver) return;
    const device = this.#device;
    if (!force && device !== undefined) await unusedCopies(this.target, device);
    if (isOnTop(this.target, (mount) => mount.device === device)) {
      const failed = (error: unknown) =>
        this.#warnings.warn("flush before forced unmount failed", error);
      if (force) await flushMount(this.target).catch(failed);
      await unmountFuse(this.target, force, this.#options.privileged);
    }
    if (!force && device !== undefined) {
      await awaitEnd(this.target, device, this.ended);
    }
    this.close();
  }

  /**
   * Stops serving at once: the kernel aborts the connection. A mount that was not unmounted before
   * stays behind, dead (ENOTCONN). Idempotent.
   */
  close(): void {
    if (this.#isOver) return;
    // A notification in flight holds the descriptor open and may wait for a reply that will not
    // come: then only MNT_FORCE aborts. It fails with EBUSY afterwards or unmounts; both will do.
    if (this.notifier.pending > 0 && findMount(this.target)?.device === this.#device) {
      void fuse.umountAsync(toBytes(this.target), MNT_FORCE | UMOUNT_NOFOLLOW);
    }
    this.#end();
  }

  /**
   * What another session needs to go on if this one dies; the caller must close the descriptor.
   * Undefined when that cannot be: the kernel does not send requests again, or the session is over.
   */
  async bequeath(): Promise<Inheritance | undefined> {
    await this.negotiated;
    const agreement = this.#agreement;
    if (agreement?.hasResend !== true || this.#isOver) return undefined;
    const descriptor = sys.duplicate(this.#channel.fd);
    return descriptor < 0 ? undefined : { descriptor, agreement };
  }

  /** Answers INIT; called by the operation table only. */
  negotiate(): Outcome {
    const offer = decodeInit(this.work.request);
    const { acl, privileged, stackDepth = 0 } = this.#options;
    const agreement = agree(offer, privileged ? stackDepth : 0, acl);
    if (agreement === undefined) {
      this.#warnings.warn(`kernel speaks FUSE ${offer.major}.${offer.minor}, too old to serve`);
      return -EIO;
    }
    this.#warnings.trace(`FUSE ${offer.major}.${offer.minor} on ${this.target}`);
    this.#adopt(agreement);
    return this.work.reply.init(agreement.reply);
  }

  #adopt(agreement: Agreement): void {
    this.#agreement = agreement;
    this.notifier.hasExpireOnly = agreement.hasExpireOnly;
    this.hasExtendedSetxattr = agreement.hasExtendedSetxattr;
    const { hasPassthrough } = agreement;
    this.fileSystem.begin?.(
      new KernelSide(this.#channel, hasPassthrough, this.work.request, this.#warnings),
    );
  }

  #serve(received: number): void {
    const { request } = this.work;
    let operation: Operation | undefined;
    let outcome: Outcome;
    let held: Promise<void> | undefined;
    if (received < IN_HEADER_BYTES) {
      this.#warnings.warn(`request of ${received} bytes`);
      return;
    }
    try {
      request.begin(received);
      operation = OPERATIONS[request.opcode];
      if (operation === undefined) {
        outcome = -ENOSYS;
      } else if (received < operation.minimumBytes) {
        throw new MalformedRequest(`${operation.name} of ${received} bytes`);
      } else {
        held = this.pause.holds(request);
        outcome = held === undefined ? this.#counted(operation, received) : LATER;
      }
    } catch (error) {
      outcome = this.#failed(operation, error);
    }
    // The handler may have closed this very session.
    if (this.#isOver) return;
    if (outcome === LATER) {
      this.#postpone(received, held ?? this.fileSystem.ready!());
    } else if (typeof outcome !== "number") {
      this.#defer(outcome, operation);
    } else if (outcome !== NO_REPLY) {
      this.#answered = operation;
      this.#outcome = outcome;
      this.#turns.put(request.uniqueLow, request.uniqueHigh, outcome);
      if (request.opcode === FUSE_INIT && outcome > 0 && this.#turns.flush()) this.#initialised();
    }
  }

  #counted(operation: Operation, received: number): Outcome {
    const { tally } = this.#options;
    if (tally === undefined) return this.#handle(operation);
    const { opcode } = this.work.request;
    const startedMs = tally.begin(opcode) ? performance.now() : 0;
    const outcome = this.#handle(operation);
    if (startedMs > 0) tally.timed(opcode, (performance.now() - startedMs) / 1000);
    if (opcode === FUSE_WRITE) tally.add(TALLIED.writtenBytes, received - operation.minimumBytes);
    else if (opcode === FUSE_READ && typeof outcome === "number" && outcome > 0) {
      tally.add(TALLIED.readBytes, outcome);
    }
    return outcome;
  }

  #handle(operation: Operation): Outcome {
    const { exchangeNote } = this.#options;
    if (isResent(this.work.request)) return handleResent(this, operation, exchangeNote);
    exchangeNote?.before(this);
    return operation.handle(this);
  }

  /** The reply to the request at hand was refused. */
  #undelivered(sent: number): void {
    const { entry, request } = this.work;
    const operation = this.#answered;
    if (operation?.givesEntry === true && this.#outcome > 0 && entry.node !== 0) {
      this.#guard("forget", () => this.fileSystem.forget(entry.node, 1));
    }
    // ENOENT: nobody waits any more. ENODEV: nor will they; the next receive says so.
    if (sent === -ENOENT || sent === -ENODEV) return;
    this.#warnings.warn(
      `${operation?.name} reply refused`,
      syscallError(sent, "write", "/dev/fuse"),
    );
    this.#turns.answer(request.uniqueLow, request.uniqueHigh, -EIO);
  }

  #defer(promise: Promise<Result>, operation: Operation | undefined): void {
    const { uniqueHigh, uniqueLow } = this.work.request;
    const settled = promise.catch((error: unknown) => this.#failed(operation, error));
    this.#afterwards(settled, false, (result) => {
      this.#turns.answer(uniqueLow, uniqueHigh, Math.min(result, 0));
    });
  }

  /** Keeps a request, and serves it again when there is what it waits for. */
  #postpone(received: number, ready: Promise<void>): void {
    const { buffer } = this.work.request;
    const kept = Buffer.from(buffer.subarray(0, received));
    this.#afterwards(ready, true, () => {
      kept.copy(buffer);
      this.#serve(received);
      this.#turns.flush();
    });
  }

  /** Goes on with the request at hand once `promise` has resolved, if its caller still waits then. */
  #afterwards<R>(promise: Promise<R>, isChange: boolean, goOn: (result: R) => void): void {
    this.#waiting.after(this.work.request, promise, isChange, (result, isWanted) => {
      if (this.#isOver) this.#finish();
      else if (isWanted) goOn(result);
    });
  }

  /** Lets a killed caller go whose request waits; the work goes on. Called by the operation table only. */
  interrupt(unique: number): void {
    // Others stay: an fsync or open that fails with EINTR is more than programs are prepared for.
    this.#waiting.interrupted(unique, () => {
      if (this.#isOver) return;
      this.#turns.answer(unique >>> 0, Math.floor(unique / 2 ** 32), -EINTR);
    });
  }

  /** Logs what a handler threw; what the caller gets is EIO. A FORGET that fails has no caller. */
  #failed(operation: Operation | undefined, error: unknown): number {
    if (error instanceof RefusedRequest) return -error.errno;
    const name = operation?.name ?? `opcode ${this.work.request.opcode}`;
    this.#warnings.warn(`${name} failed`, error);
    if (operation !== undefined && NO_ANSWER.has(operation.name)) return NO_REPLY;
    return error instanceof SyscallError ? -error.errno : -EIO;
  }

  #initialised(): void {
    this.#resolveNegotiated(this.#agreement?.hasPassthrough === true);
    if (this.#device === undefined || !this.#options.privileged) return;
    if (!raiseReadAhead(this.#device, READ_AHEAD_KIB)) {
      this.#warnings.trace(`cannot raise the read-ahead of ${this.target}`);
    }
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.notifier.end();
    this.pause.end();
    serving.delete(this);
    this.#channel.close();
    this.#finish();
  }

  /** The last act, once no deferred call is left that works on what `destroy` takes away. */
  #finish(): void {
    if (!this.#waiting.isIdle) return;
    this.#guard("destroy", () => this.fileSystem.destroy());
    this.#guard("onEnd", this.#options.onEnd);
    this.#resolveNegotiated(false);
    this.#resolveEnded();
  }

  #guard(what: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#warnings.warn(`${what} failed`, error);
    }
  }
}
