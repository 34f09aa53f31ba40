/** The one place where failed requests become the project's errors. */

import { errors } from "undici";
import {
  BaseError,
  CancelledError,
  NotFoundError,
  PermissionDeniedError,
  ResourceExhaustedError,
  UnavailableError,
} from "../system/errors.js";
import { MAX_RETRY_AFTER_MS } from "./limits.js";

/** A failure that may be gone when one tries again. */
export class TransientError extends UnavailableError {
  /** How long the registry asks to wait. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number | undefined }) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    // Outside this room it is an UnavailableError like any other.
    this.name = "UnavailableError";
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Messages for what Node and OpenSSL report, with what to do about it. */
const CERTIFICATE_CODES = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "CERT_HAS_EXPIRED",
  "CERT_NOT_YET_VALID",
  "ERR_TLS_CERT_ALTNAME_INVALID",
  "CERT_UNTRUSTED",
  "CERT_REVOKED",
]);

// Not EAI_AGAIN: a machine without a network should say so at once.
const TRANSIENT_CODES = new Set([
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "UND_ERR_SOCKET",
  "UND_ERR_CLOSED",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
]);

/** The symbol of an error or of the first of its causes that has one. */
export function codeOf(error: unknown): string {
  for (let one = error; one instanceof Error; one = one.cause) {
    const { code } = one as { code?: unknown };
    if (typeof code === "string" && code !== "") return code;
    if (one instanceof AggregateError && one.errors.length > 0) return codeOf(one.errors[0]);
  }
  return "";
}

/** True when the other end does not speak TLS, as far as a failed handshake can tell. */
export function isNoTls(error: unknown): boolean {
  for (let one = error; one instanceof Error; one = one.cause) {
    const code = (one as { code?: unknown }).code;
    if (code === "EPROTO" || code === "ERR_SSL_WRONG_VERSION_NUMBER") return true;
    if (code === "ECONNRESET" && /before secure TLS connection/.test(one.message)) return true;
    if (code === "ERR_SSL_PACKET_LENGTH_TOO_LONG") return true;
    // Some hang up on a greeting that they do not understand.
    if (one instanceof errors.SocketError && one.socket?.bytesRead === 0) return true;
  }
  return false;
}

/** What a request failed with before there was an answer. Errors of our own pass. */
export function requestFailure(error: unknown, what: string, signal?: AbortSignal): BaseError {
  if (signal?.aborted === true) return new CancelledError(`${what}: cancelled`, { cause: error });
  if (error instanceof BaseError) return error;
  const code = codeOf(error);
  const text = error instanceof Error ? rootMessage(error) : String(error);
  if (CERTIFICATE_CODES.has(code)) {
    return new UnavailableError(
      `${what}: the certificate is not trusted: ${text}; put its CA into a certs.d directory, or ` +
        "use --tls-verify=false",
      { cause: error },
    );
  }
  // A damaged answer (HPE_…) comes from a broken connection more often than from a broken server.
  if (TRANSIENT_CODES.has(code) || code.startsWith("HPE_")) {
    return new TransientError(`${what}: the connection broke: ${text} (${code})`, { cause: error });
  }
  return new UnavailableError(`${what}: ${text}`, { cause: error });
}

function rootMessage(error: Error): string {
  if (error instanceof AggregateError && error.errors[0] instanceof Error) {
    return rootMessage(error.errors[0]);
  }
  return error.cause instanceof Error ? rootMessage(error.cause) : error.message;
}

/** What an answer with an error status means. */
export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** The error for an answer that is not a success. */
export function answerFailure(answer: ErrorAnswer, what: string): BaseError {
  const { status } = answer;
  const said = `${what}: the registry answers ${status}${reasonOf(answer)}`;
  const options = { details: { status } };
  if (status === 401) {
    return new PermissionDeniedError(`${said}; log in first: varve login REGISTRY`, options);
  }
  if (status === 403) return new PermissionDeniedError(said, options);
  if (status === 404) return new NotFoundError(said, options);
  if (status === 408 || status === 429 || status >= 500) {
    return new TransientError(said, { retryAfterMs: retryAfterMs(answer.headers["retry-after"]) });
  }
  if (status === 413) return new ResourceExhaustedError(said, options);
  return new UnavailableError(said, options);
}

/** ": denied: requested access …" out of the specification's error document. */
function reasonOf({ body, headers }: ErrorAnswer): string {
  try {
    const { errors } = JSON.parse(body) as {
      errors?: { code?: unknown; message?: unknown }[];
    };
    const first = errors?.[0];
    if (first === undefined) return "";
    const text = [first.code, first.message].filter((part) => typeof part === "string").join(": ");
    return ` (${printable(text)})`;
  } catch {
    const isHtml = /html/i.test(String(headers["content-type"] ?? ""));
    if (isHtml) return " with a web page; is it a registry?";
    const text = printable(body.trim());
    return text === "" ? "" : ` (${text})`;
  }
}

function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what a terminal would obey is taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ").slice(0, 300);
}

/** Milliseconds of a Retry-After header, which is seconds or a date. */
export function retryAfterMs(value: string | string[] | undefined): number | undefined {
  if (typeof value !== "string") return undefined;
  const delay = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  if (Number.isNaN(delay)) return undefined;
  return Math.min(Math.max(delay, 0), MAX_RETRY_AFTER_MS);
}
