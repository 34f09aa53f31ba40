/**
 * The error classes of the whole project. Every error that leaves a room is one of these; callers
 * branch on `code`, never on the text. A message says operation, object and reason.
 */

/** Stable names of failures. A code never changes its meaning. */
export type ErrorCode =
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "INVALID_ARGUMENT"
  | "FAILED_PRECONDITION"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "UNAVAILABLE"
  | "CORRUPT_DATA"
  | "UNSUPPORTED"
  | "CANCELLED"
  | "SYSCALL";

/** The root of the hierarchy: an error with a stable code, optional details and an optional cause. */
export class BaseError extends Error {
  readonly code: ErrorCode;
  readonly details?: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    if (options.details !== undefined) this.details = options.details;
  }
}

type Options = { cause?: unknown; details?: Readonly<Record<string, unknown>> };

/** The named thing does not exist. */
export class NotFoundError extends BaseError {
  constructor(message: string, options?: Options) {
    super("NOT_FOUND", message, options);
  }
}

/** The name is taken. */
export class AlreadyExistsError extends BaseError {
  constructor(message: string, options?: Options) {
    super("ALREADY_EXISTS", message, options);
  }
}

/** The caller asked for something malformed; repeating it cannot help. */
export class InvalidArgumentError extends BaseError {
  constructor(message: string, options?: Options) {
    super("INVALID_ARGUMENT", message, options);
  }
}

/** The request is well formed, but the state of its object forbids it. */
export class FailedPreconditionError extends BaseError {
  constructor(message: string, options?: Options) {
    super("FAILED_PRECONDITION", message, options);
  }
}

/** The caller or the process may not do this. */
export class PermissionDeniedError extends BaseError {
  constructor(message: string, options?: Options) {
    super("PERMISSION_DENIED", message, options);
  }
}

/** A limit, a quota or the disk is exhausted. */
export class ResourceExhaustedError extends BaseError {
  constructor(message: string, options?: Options) {
    super("RESOURCE_EXHAUSTED", message, options);
  }
}

/** A service (daemon, registry) cannot be reached now; trying again may help. */
export class UnavailableError extends BaseError {
  constructor(message: string, options?: Options) {
    super("UNAVAILABLE", message, options);
  }
}

/** Bytes are not what their digest, size or format promised. */
export class CorruptDataError extends BaseError {
  constructor(message: string, options?: Options) {
    super("CORRUPT_DATA", message, options);
  }
}

/** A feature that this kernel, file system, image or version does not have. */
export class UnsupportedError extends BaseError {
  constructor(message: string, options?: Options) {
    super("UNSUPPORTED", message, options);
  }
}

/** The caller went away or asked to stop. */
export class CancelledError extends BaseError {
  constructor(message: string, options?: Options) {
    super("CANCELLED", message, options);
  }
}

/** A system call failed. `errno` is positive, `errnoName` its symbol ("ENOENT"). */
export class SyscallError extends BaseError {
  readonly errno: number;
  readonly errnoName: string;
  readonly syscall: string;

  constructor(errno: number, errnoName: string, syscall: string, subject: string, text: string) {
    super("SYSCALL", `${syscall} ${subject}: ${text} (${errnoName})`);
    this.errno = errno;
    this.errnoName = errnoName;
    this.syscall = syscall;
  }
}
