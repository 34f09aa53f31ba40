/**
 * containerd's own services, as a client of its socket.
 *
 * A *scope* is the namespace (and the lease) that calls are made in; what is made under a lease is not
 * collected while it lasts.
 */

import { randomUUID } from "node:crypto";
import type { DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";
import type { Descriptor } from "../../content/descriptor.js";
import type { Digest } from "../../content/digest.js";
import type { Labels } from "../../metadata/labels.js";
import { AlreadyExistsError, BaseError } from "../../system/errors.js";
import { fromServiceError } from "../errors.js";
import {
  Content,
  WriteAction,
  type WriteContentRequestSchema,
} from "../gen/containerd/services/content/v1/content_pb.js";
import { Images } from "../gen/containerd/services/images/v1/images_pb.js";
import { Introspection } from "../gen/containerd/services/introspection/v1/introspection_pb.js";
import { Leases } from "../gen/containerd/services/leases/v1/leases_pb.js";
import { Snapshots } from "../gen/containerd/services/snapshots/v1/snapshots_pb.js";
import type { Mount } from "../gen/containerd/types/mount_pb.js";
import { type CallOptions, GrpcClient } from "../grpc-client.js";

/** Where calls are made. */
export interface Scope {
  readonly namespace: string;
  readonly lease?: string | undefined;
}

/** What goes into the content store. */
export interface NewContent {
  readonly digest: Digest;
  readonly size: number;
  readonly labels: Labels;
  /** The ingest's name; by default one of our own. */
  readonly ref?: string;
  readonly data: AsyncIterable<Uint8Array>;
}

// For work that a crash has cut off; what is made has a name long before.
const LEASE_MS = 3600 * 1000;
const HEADERS = { namespace: "containerd-namespace", lease: "containerd-lease" } as const;

/** A containerd. Every method throws UnavailableError when it does not answer. */
export class ContainerdClient {
  readonly address: string;
  readonly #client: GrpcClient;

  /** @param address path of containerd's socket */
  constructor(address: string) {
    this.address = address;
    this.#client = new GrpcClient(address);
  }

  /** A lease that ends by itself within the hour. @returns the scope of work under it */
  async lease(scope: Scope): Promise<Scope & { readonly lease: string }> {
    const id = `varve-${randomUUID()}`;
    const expires = new Date(Date.now() + LEASE_MS).toISOString();
    const labels = { "containerd.io/gc.expire": expires };
    await this.#call(scope, Leases.method.create, { id, labels }, "create a lease");
    return { ...scope, lease: id };
  }

  /** Runs `work` under a lease of its own. */
  async withLease<R>(scope: Scope, work: (leased: Scope) => Promise<R>): Promise<R> {
    const leased = await this.lease(scope);
    try {
      return await work(leased);
    } finally {
      const { lease: id } = leased;
      await this.#call(scope, Leases.method.delete, { id }, "delete a lease").catch(
        // It ends by itself.
        () => undefined,
      );
    }
  }

  /** Where the content store keeps its files, as containerd sees it; undefined when it does not say. */
  async contentRoot(): Promise<string | undefined> {
    const request = { filters: ["type==io.containerd.content.v1,id==content"] };
    // The same in all namespaces, but a call has to name one.
    const scope = { namespace: "default" };
    const what = "ask for the content store's directory";
    const answer = await this.#call(scope, Introspection.method.plugins, request, what);
    return answer.plugins[0]?.exports.root;
  }

  /** The bytes of a blob. @throws NotFoundError none in this namespace */
  async contentSize(scope: Scope, digest: string): Promise<number> {
    const what = `look for blob ${digest}`;
    const { info } = await this.#call(scope, Content.method.info, { digest }, what);
    return Number(info?.size ?? 0n);
  }

  /** A blob, piece by piece. @throws NotFoundError */
  async *readContent(scope: Scope, digest: string, signal?: AbortSignal) {
    const options = { ...optionsOf(scope), signal };
    try {
      const answers = this.#client.receive(Content.method.read, { digest }, options);
      for await (const { data } of answers) yield data;
    } catch (error) {
      throw this.#failure(error, `read blob ${digest}`);
    }
  }

  /** Writes a blob; one that is there gets the labels. */
  async writeContent(scope: Scope, content: NewContent, signal?: AbortSignal): Promise<void> {
    const { digest, labels } = content;
    const what = `write blob ${digest}`;
    try {
      await this.#client.exchange(Content.method.write, writeRequests(content), {
        ...optionsOf(scope),
        signal,
      });
    } catch (error) {
      const failure = this.#failure(error, what);
      if (!(failure instanceof AlreadyExistsError)) throw failure;
      const paths = Object.keys(labels).map((key) => `labels.${key}`);
      if (paths.length === 0) return;
      const request = { info: { digest, labels: { ...labels } }, updateMask: { paths } };
      await this.#call(scope, Content.method.update, request, what);
    }
  }

  /** Prepares a snapshot. @throws AlreadyExistsError the key, or the snapshot that a label names */
  async prepareSnapshot(
    scope: Scope,
    o: { snapshotter: string; key: string; parent: string; labels: Labels },
  ): Promise<Mount[]> {
    const request = { ...o, labels: { ...o.labels } };
    const what = `prepare snapshot ${o.key}`;
    return (await this.#call(scope, Snapshots.method.prepare, request, what)).mounts;
  }

  /** Commits a snapshot; one that is there by now is fine. */
  async commitSnapshot(
    scope: Scope,
    o: { snapshotter: string; key: string; name: string; labels: Labels },
  ): Promise<void> {
    const request = { ...o, labels: { ...o.labels } };
    const what = `commit snapshot ${o.name}`;
    await this.#call(scope, Snapshots.method.commit, request, what).catch(ignore("ALREADY_EXISTS"));
  }

  async removeSnapshot(scope: Scope, o: { snapshotter: string; key: string }): Promise<void> {
    await this.#call(scope, Snapshots.method.remove, o, `remove snapshot ${o.key}`);
  }

  /** Points a name to a target; labels are added to those it has. */
  async putImage(scope: Scope, name: string, target: Descriptor, labels: Labels): Promise<void> {
    const { mediaType, digest, size } = target;
    const image = {
      name,
      labels: { ...labels },
      target: { mediaType, digest, size: BigInt(size) },
      // Older ones take the client's word for it.
      updatedAt: timestampFromDate(new Date()),
    };
    const what = `name image ${name}`;
    try {
      await this.#call(scope, Images.method.create, { image }, what);
    } catch (error) {
      if (!(error instanceof AlreadyExistsError)) throw error;
      const paths = ["target", ...Object.keys(labels).map((key) => `labels.${key}`)];
      await this.#call(scope, Images.method.update, { image, updateMask: { paths } }, what);
    }
  }

  /** Takes a name away; one that is not there is fine. With `sync`, garbage is gone when it resolves. */
  async deleteImage(scope: Scope, name: string, { sync }: { sync: boolean }): Promise<void> {
    const what = `remove image ${name}`;
    await this.#call(scope, Images.method.delete, { name, sync }, what).catch(ignore("NOT_FOUND"));
  }

  close(): void {
    this.#client.close();
  }

  async #call<M extends DescMethodUnary>(
    scope: Scope,
    method: M,
    request: MessageInitShape<M["input"]>,
    what: string,
  ): Promise<MessageShape<M["output"]>> {
    try {
      return await this.#client.unary(method, request, optionsOf(scope));
    } catch (error) {
      throw this.#failure(error, what);
    }
  }

  #failure(error: unknown, what: string): unknown {
    if (error instanceof BaseError) return error;
    return fromServiceError(error as ServiceError, `containerd at ${this.address}: ${what}`);
  }
}

function optionsOf({ namespace, lease }: Scope): CallOptions {
  const headers = {
    [HEADERS.namespace]: namespace,
    ...(lease === undefined || lease === "" ? {} : { [HEADERS.lease]: lease }),
  };
  return { headers };
}

/** The scope of a call that containerd makes; undefined when it does not say. */
export function scopeOf(header: (name: string) => string | undefined): Scope | undefined {
  const namespace = header(HEADERS.namespace);
  return namespace === undefined ? undefined : { namespace, lease: header(HEADERS.lease) };
}

async function* writeRequests(
  content: NewContent,
): AsyncGenerator<MessageInitShape<typeof WriteContentRequestSchema>> {
  const { digest, size, labels, data, ref = `varve-${randomUUID()}` } = content;
  const ingest = { ref, total: BigInt(size), expected: digest };
  let offset = 0n;
  for await (const piece of data) {
    yield { ...ingest, action: WriteAction.WRITE, offset, data: piece };
    offset += BigInt(piece.length);
  }
  yield { ...ingest, action: WriteAction.COMMIT, offset, labels: { ...labels } };
}

function ignore(code: BaseError["code"]): (error: unknown) => void {
  return (error) => {
    if (!(error instanceof BaseError) || error.code !== code) throw error;
  };
}
