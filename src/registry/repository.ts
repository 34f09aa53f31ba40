/** One repository of a registry: manifests and blobs, through mirrors where there are some. */

import type { Descriptor } from "../content/descriptor.js";
import { type Digest, digestOf, isDigest } from "../content/digest.js";
import {
  BaseError,
  CancelledError,
  CorruptDataError,
  FailedPreconditionError,
  UnsupportedError,
} from "../system/errors.js";
import type { RegistryAccess, RepositoryName } from "./access.js";
import { Connection, type HostAnswer, readBounded } from "./connection.js";
import { requestFailure } from "./failures.js";
import { type Capability, hostsOf } from "./hosts.js";
import { MAX_MANIFEST_BYTES, type RetryPolicy } from "./limits.js";
import { withRetries } from "./retry.js";
import type { Transport } from "./transport.js";

/** What a tag or a digest means now. */
export interface Resolved {
  readonly descriptor: Descriptor;
  /** Came along when the registry could not answer HEAD. */
  readonly bytes?: Buffer;
}

/** Everything that a registry may answer a manifest request with, and that is known here. */
const MANIFEST_TYPES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  // Asked for last, so that an image that exists in this form only is refused by its name.
  "application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.2",
  "application/vnd.docker.distribution.manifest.v1+json;q=0.1",
];
const SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+";
const ACCEPT = MANIFEST_TYPES.join(", ");

/** A repository, as one caller sees it. Tokens live as long as this. */
export class Repository {
  readonly name: RepositoryName;
  readonly retry: RetryPolicy;
  readonly #connections: readonly Connection[];

  /** @throws InvalidArgumentError the host's configuration is malformed */
  constructor(
    name: RepositoryName,
    access: RegistryAccess,
    o: {
      transport: Transport;
      retry: RetryPolicy;
      wantsIdentity?: boolean;
      /** What is wanted of it is named by a digest; some mirrors are only for those, or for tags. */
      isByDigest?: boolean;
    },
  ) {
    this.name = name;
    this.retry = o.retry;
    this.#connections = hostsOf(name, access, o.isByDigest).map(
      (host) => new Connection({ ...o, host, access }),
    );
  }

  /** The hosts that can do something, in the order in which they are to be asked. */
  connections(capability: Capability): readonly Connection[] {
    const able = this.#connections.filter((one) => one.host.capabilities.has(capability));
    if (able.length > 0) return able;
    throw new FailedPreconditionError(
      `registry ${this.name.domain}: its hosts.toml names no host that can ${capability}`,
    );
  }

  /**
   * Asks every host until one answers; mirrors may lack what the registry has. The error is that of
   * the last one, which is the registry itself.
   */
  async firstOf<R>(
    capability: Capability,
    work: (connection: Connection) => Promise<R>,
  ): Promise<R> {
    let failure: unknown;
    for (const connection of this.connections(capability)) {
      try {
        return await work(connection);
      } catch (error) {
        if (error instanceof CancelledError || !(error instanceof BaseError)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /**
   * What a tag or digest points to now: HEAD, or GET where HEAD says too little.
   *
   * @throws NotFoundError, PermissionDeniedError, UnavailableError, CancelledError
   * @throws CorruptDataError the answer is no manifest
   */
  async resolve(reference: string, signal?: AbortSignal): Promise<Resolved> {
    const what = `resolve ${this.#spell(reference)}`;
    // What a digest means is for nobody to say: who has it may be asked.
    const capability = isDigest(reference) ? "pull" : "resolve";
    return await this.firstOf(capability, (connection) =>
      withRetries(this.retry, signal, async () => {
        const answer = await connection.send({
          ...manifestRequest(connection, "HEAD", reference, what, signal),
          // What these say is said better, and with a body, to a GET.
          accept: [200, 400, 404, 405, 406, 415, 500, 501],
        });
        await answer.body.dump();
        const descriptor = answer.status === 200 ? describe(answer, reference, what) : undefined;
        if (descriptor !== undefined) return { descriptor };
        return await this.#get(connection, reference, what, signal);
      }),
    );
  }

  /**
   * Fetches a manifest or index by its descriptor, verified.
   *
   * @throws CorruptDataError it does not have the digest or size
   */
  async manifest(descriptor: Descriptor, signal?: AbortSignal): Promise<Buffer> {
    const { digest, size } = descriptor;
    const what = `fetch ${this.#spell(digest)}`;
    return await this.firstOf("pull", (connection) =>
      withRetries(this.retry, signal, async () => {
        const { bytes } = await this.#get(connection, digest, what, signal);
        if (bytes.length === size) return bytes;
        throw new CorruptDataError(`${what}: ${bytes.length} bytes, expected ${size}`);
      }),
    );
  }

  async #get(
    connection: Connection,
    reference: string,
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<{ descriptor: Descriptor; bytes: Buffer }> {
    const answer = await connection.send({
      ...manifestRequest(connection, "GET", reference, what, signal),
      accept: [200],
    });
    const bytes = await readBounded(answer.body, MAX_MANIFEST_BYTES + 1).catch((error: unknown) => {
      throw requestFailure(error, what, signal);
    });
    if (bytes.length > MAX_MANIFEST_BYTES) {
      throw new CorruptDataError(`${what}: more than ${MAX_MANIFEST_BYTES} bytes for a manifest`);
    }
    const digest = digestOf(bytes);
    const mediaType = mediaTypeOf(answer, bytes, what);
    const stated = isDigest(reference) ? reference : headerDigest(answer);
    // Schema 1 is signed: its digest is not that of the bytes. It is refused by name later.
    if (stated !== undefined && stated !== digest && !mediaType.startsWith(SCHEMA1)) {
      throw new CorruptDataError(
        `${what}: the registry sent content with the digest ${digest} instead of ${stated}`,
        { details: { expected: stated, actual: digest } },
      );
    }
    return { descriptor: { mediaType, digest, size: bytes.length }, bytes };
  }

  #spell(reference: string): string {
    const { domain, path } = this.name;
    return `${domain}/${path}${isDigest(reference) ? "@" : ":"}${reference}`;
  }
}

function manifestRequest(
  connection: Connection,
  method: "GET" | "HEAD",
  reference: string,
  what: string,
  signal: AbortSignal | undefined,
) {
  const path = `/${connection.host.path}/manifests/${reference}`;
  const scopes = connection.scopes("pull");
  return { method, path, headers: { accept: ACCEPT }, scopes, signal, what };
}

/** The descriptor that a HEAD's headers make; undefined when they do not say everything. */
function describe(answer: HostAnswer, reference: string, what: string): Descriptor | undefined {
  const mediaType = plainType(answer);
  const digest = headerDigest(answer);
  const size = Number(answer.headers["content-length"]);
  if (digest === undefined || mediaType === "" || mediaType === "application/json")
    return undefined;
  if (!Number.isSafeInteger(size) || size <= 0 || /html/.test(mediaType)) return undefined;
  if (isDigest(reference) && reference !== digest) {
    throw new CorruptDataError(`${what}: the registry says that its digest is ${digest}`);
  }
  return { mediaType, digest, size };
}

function headerDigest(answer: HostAnswer): Digest | undefined {
  const value = answer.headers["docker-content-digest"];
  return typeof value === "string" && isDigest(value) ? value : undefined;
}

function plainType(answer: HostAnswer): string {
  const value = answer.headers["content-type"];
  return typeof value === "string" ? (value.split(";")[0] ?? "").trim().toLowerCase() : "";
}

/** The document's own word first: proxies and file servers say "application/json" of everything. */
function mediaTypeOf(answer: HostAnswer, bytes: Buffer, what: string): string {
  const type = plainType(answer);
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString("utf8"));
  } catch {
    const hint = /html/.test(type) ? " but a web page; is it a registry?" : "";
    throw new CorruptDataError(`${what}: the registry's answer is no manifest${hint}`);
  }
  if (typeof json !== "object" || json === null) {
    throw new CorruptDataError(`${what}: the registry's answer is no manifest`);
  }
  const { mediaType, manifests, layers, config } = json as Record<string, unknown>;
  if (typeof mediaType === "string" && mediaType !== "") return mediaType;
  if (/manifest|index/.test(type)) return type;
  if (manifests !== undefined) return MANIFEST_TYPES[0]!;
  if (layers !== undefined || config !== undefined) return MANIFEST_TYPES[2]!;
  throw new UnsupportedError(`${what}: the registry's answer is of no known kind of manifest`);
}
