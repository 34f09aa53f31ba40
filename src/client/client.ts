/**
 * The typed client of a varve daemon: one method per RPC of `varve.v1.Varve`.
 *
 * Every method fails with one of the project's errors (see `system/errors.ts`), rebuilt from the
 * daemon's; UnavailableError when no daemon answers.
 */

import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type CheckStoreRequestSchema,
  type CheckStoreResponse,
  type CommitStepRequestSchema,
  type CommitStepResponse,
  type CommitViewRequestSchema,
  type CommitViewResponse,
  type CreateBundleRequestSchema,
  type CreateBundleResponse,
  type CreateLeaseRequestSchema,
  type CreateLeaseResponse,
  type DiffViewRequestSchema,
  type DiffViewResponse,
  type DiskUsageResponse,
  type Event,
  type EventsRequestSchema,
  type ImageHistoryRequestSchema,
  type ImageHistoryResponse,
  type InfoResponse,
  type InspectImageRequestSchema,
  type InspectImageResponse,
  type InspectSnapshotRequestSchema,
  type InspectSnapshotResponse,
  type InspectViewRequestSchema,
  type InspectViewResponse,
  type ListImagesRequestSchema,
  type ListImagesResponse,
  type ListLeasesResponse,
  type ListViewsRequestSchema,
  type ListViewsResponse,
  type LoadImagesOptionsSchema,
  type LoadImagesRequestSchema,
  type LoadImagesResponse,
  type LoginRequestSchema,
  type LoginResponse,
  type LogoutRequestSchema,
  type LogoutResponse,
  type MetricsResponse,
  type MountViewRequestSchema,
  type MountViewResponse,
  type PinImageRequestSchema,
  type PinImageResponse,
  type PruneRequestSchema,
  type PruneResponse,
  type PullImageRequestSchema,
  type PullImageResponse,
  type PushImageRequestSchema,
  type PushImageResponse,
  type RemoveImageRequestSchema,
  type RemoveImageResponse,
  type RemoveLeaseRequestSchema,
  type RemoveLeaseResponse,
  type RemoveViewRequestSchema,
  type RemoveViewResponse,
  type SaveImagesRequestSchema,
  type SaveImagesResponse,
  type ShutdownResponse,
  type TagImageRequestSchema,
  type TagImageResponse,
  type UnmountViewRequestSchema,
  type UnmountViewResponse,
  type UnpackImageRequestSchema,
  type UnpackImageResponse,
  Varve,
  type VersionResponse,
} from "../services/gen/varve/v1/varve_pb.js";
import { type CallOptions, GrpcTransport } from "./transport.js";

const rpc = Varve.method;

// Well under the message limit, large enough that framing costs nothing.
const LOAD_CHUNK_BYTES = 1024 * 1024;

/** A connection to a daemon. Make it with `connect`, end it with `close`. */
export class VarveClient {
  readonly #transport: GrpcTransport;

  private constructor(transport: GrpcTransport) {
    this.#transport = transport;
  }

  /** A client of the daemon at `socket` (a path). Connects at the first call, and again when needed. */
  static connect(options: { socket: string }): VarveClient {
    return new VarveClient(new GrpcTransport(options.socket));
  }

  /** Closes the connection; calls under way fail. Idempotent. */
  close(): void {
    this.#transport.close();
  }

  /** Versions of the daemon, its API and its Node. */
  version(options?: CallOptions): Promise<VersionResponse> {
    return this.#transport.unary(rpc.version, {}, options);
  }

  /** Paths, counts and what is missing on this machine. */
  info(options?: CallOptions): Promise<InfoResponse> {
    return this.#transport.unary(rpc.info, {}, options);
  }

  /** What the daemon counts, in Prometheus' text format. */
  metrics(options?: CallOptions): Promise<MetricsResponse> {
    return this.#transport.unary(rpc.metrics, {}, options);
  }

  /** Asks the daemon to end cleanly; answers before it has ended. */
  shutdown(options?: CallOptions): Promise<ShutdownResponse> {
    return this.#transport.unary(rpc.shutdown, {}, options);
  }

  /**
   * Loads images from `load.path` on the daemon's host, or from the bytes of `archive` when the
   * path is empty. Chunks may have any size.
   */
  loadImages(
    load: MessageInitShape<typeof LoadImagesOptionsSchema>,
    archive?: AsyncIterable<Uint8Array>,
    options?: CallOptions,
  ): AsyncGenerator<LoadImagesResponse, void, undefined> {
    return this.#transport.stream(rpc.loadImages, loadRequests(load, archive), options);
  }

  /** Writes an archive to `request.path`, or returns its bytes as chunks when the path is empty. */
  saveImages(
    request: MessageInitShape<typeof SaveImagesRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<SaveImagesResponse, void, undefined> {
    return this.#transport.serverStream(rpc.saveImages, request, options);
  }

  /** Images that match all filters. */
  listImages(
    request: MessageInitShape<typeof ListImagesRequestSchema> = {},
    options?: CallOptions,
  ): Promise<ListImagesResponse> {
    return this.#transport.unary(rpc.listImages, request, options);
  }

  /** One unpacked layer by its chain ID, with the blob that it came from. */
  inspectSnapshot(
    request: MessageInitShape<typeof InspectSnapshotRequestSchema>,
    options?: CallOptions,
  ): Promise<InspectSnapshotResponse> {
    return this.#transport.unary(rpc.inspectSnapshot, request, options);
  }

  /** One image with its stored JSON. */
  inspectImage(
    request: MessageInitShape<typeof InspectImageRequestSchema>,
    options?: CallOptions,
  ): Promise<InspectImageResponse> {
    return this.#transport.unary(rpc.inspectImage, request, options);
  }

  /** An image's history, newest first. */
  imageHistory(
    request: MessageInitShape<typeof ImageHistoryRequestSchema>,
    options?: CallOptions,
  ): Promise<ImageHistoryResponse> {
    return this.#transport.unary(rpc.imageHistory, request, options);
  }

  /** Gives an image a second reference. */
  tagImage(
    request: MessageInitShape<typeof TagImageRequestSchema>,
    options?: CallOptions,
  ): Promise<TagImageResponse> {
    return this.#transport.unary(rpc.tagImage, request, options);
  }

  /** Removes a reference, or an image by its ID. */
  removeImage(
    request: MessageInitShape<typeof RemoveImageRequestSchema>,
    options?: CallOptions,
  ): Promise<RemoveImageResponse> {
    return this.#transport.unary(rpc.removeImage, request, options);
  }

  /** Pins names of images, or takes their pins away. */
  pinImage(
    request: MessageInitShape<typeof PinImageRequestSchema>,
    options?: CallOptions,
  ): Promise<PinImageResponse> {
    return this.#transport.unary(rpc.pinImage, request, options);
  }

  /** What images, unpacked layers, views and the build cache take. */
  diskUsage(options?: CallOptions): Promise<DiskUsageResponse> {
    return this.#transport.unary(rpc.diskUsage, {}, options);
  }

  /** Removes images that nothing uses, or tells which they are. */
  prune(
    request: MessageInitShape<typeof PruneRequestSchema> = {},
    options?: CallOptions,
  ): Promise<PruneResponse> {
    return this.#transport.unary(rpc.prune, request, options);
  }

  /** Checks the store; faults as they are found, the last message has the summary. */
  checkStore(
    request: MessageInitShape<typeof CheckStoreRequestSchema> = {},
    options?: CallOptions,
  ): AsyncGenerator<CheckStoreResponse, void, undefined> {
    return this.#transport.serverStream(rpc.checkStore, request, options);
  }

  /** Keeps images, blobs or unpacked layers from garbage collection. */
  createLease(
    request: MessageInitShape<typeof CreateLeaseRequestSchema>,
    options?: CallOptions,
  ): Promise<CreateLeaseResponse> {
    return this.#transport.unary(rpc.createLease, request, options);
  }

  /** All leases that have not expired. */
  listLeases(options?: CallOptions): Promise<ListLeasesResponse> {
    return this.#transport.unary(rpc.listLeases, {}, options);
  }

  /** Removes a lease. */
  removeLease(
    request: MessageInitShape<typeof RemoveLeaseRequestSchema>,
    options?: CallOptions,
  ): Promise<RemoveLeaseResponse> {
    return this.#transport.unary(rpc.removeLease, request, options);
  }

  /** What happens in the store, as it happens. */
  events(
    request: MessageInitShape<typeof EventsRequestSchema> = {},
    options?: CallOptions,
  ): AsyncGenerator<Event, void, undefined> {
    return this.#transport.serverStream(rpc.events, request, options);
  }

  /** Unpacks an image's layers; the last message has the chain ID. */
  unpackImage(
    request: MessageInitShape<typeof UnpackImageRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<UnpackImageResponse, void, undefined> {
    return this.#transport.serverStream(rpc.unpackImage, request, options);
  }

  /** Fetches an image from a registry and unpacks it; the last message has the image. */
  pullImage(
    request: MessageInitShape<typeof PullImageRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<PullImageResponse, void, undefined> {
    return this.#transport.serverStream(rpc.pullImage, request, options);
  }

  /** Sends an image to a registry; the last message has what was pushed. */
  pushImage(
    request: MessageInitShape<typeof PushImageRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<PushImageResponse, void, undefined> {
    return this.#transport.serverStream(rpc.pushImage, request, options);
  }

  /** Tries credentials at a registry and keeps them. */
  login(
    request: MessageInitShape<typeof LoginRequestSchema>,
    options?: CallOptions,
  ): Promise<LoginResponse> {
    return this.#transport.unary(rpc.login, request, options);
  }

  /** Forgets the credentials of a registry. */
  logout(
    request: MessageInitShape<typeof LogoutRequestSchema>,
    options?: CallOptions,
  ): Promise<LogoutResponse> {
    return this.#transport.unary(rpc.logout, request, options);
  }

  /** Makes and mounts a view, or mounts an existing one again; the last message has the view. */
  mountView(
    request: MessageInitShape<typeof MountViewRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<MountViewResponse, void, undefined> {
    return this.#transport.serverStream(rpc.mountView, request, options);
  }

  /** All views. */
  listViews(
    request: MessageInitShape<typeof ListViewsRequestSchema> = {},
    options?: CallOptions,
  ): Promise<ListViewsResponse> {
    return this.#transport.unary(rpc.listViews, request, options);
  }

  /** One view, with its upper directory's usage. */
  inspectView(
    request: MessageInitShape<typeof InspectViewRequestSchema>,
    options?: CallOptions,
  ): Promise<InspectViewResponse> {
    return this.#transport.unary(rpc.inspectView, request, options);
  }

  /** Unmounts a view; what was written stays. */
  unmountView(
    request: MessageInitShape<typeof UnmountViewRequestSchema>,
    options?: CallOptions,
  ): Promise<UnmountViewResponse> {
    return this.#transport.unary(rpc.unmountView, request, options);
  }

  /** Removes a view and what was written in it. */
  removeView(
    request: MessageInitShape<typeof RemoveViewRequestSchema>,
    options?: CallOptions,
  ): Promise<RemoveViewResponse> {
    return this.#transport.unary(rpc.removeView, request, options);
  }

  /** What changed in a view, in batches. */
  diffView(
    request: MessageInitShape<typeof DiffViewRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<DiffViewResponse, void, undefined> {
    return this.#transport.serverStream(rpc.diffView, request, options);
  }

  /** Makes an image of a view; the last message has the image. */
  commitView(
    request: MessageInitShape<typeof CommitViewRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<CommitViewResponse, void, undefined> {
    return this.#transport.serverStream(rpc.commitView, request, options);
  }

  /** Makes an image of each step of a build; the last message has the last image. */
  commitStep(
    request: MessageInitShape<typeof CommitStepRequestSchema>,
    options?: CallOptions,
  ): AsyncGenerator<CommitStepResponse, void, undefined> {
    return this.#transport.serverStream(rpc.commitStep, request, options);
  }

  /** Writes an OCI runtime bundle for a mounted view. */
  createBundle(
    request: MessageInitShape<typeof CreateBundleRequestSchema>,
    options?: CallOptions,
  ): Promise<CreateBundleResponse> {
    return this.#transport.unary(rpc.createBundle, request, options);
  }
}

async function* loadRequests(
  load: MessageInitShape<typeof LoadImagesOptionsSchema>,
  archive: AsyncIterable<Uint8Array> | undefined,
): AsyncGenerator<MessageInitShape<typeof LoadImagesRequestSchema>, void, undefined> {
  yield { options: load };
  if (archive === undefined) return;
  for await (const chunk of archive) {
    for (let start = 0; start < chunk.length; start += LOAD_CHUNK_BYTES) {
      yield { chunk: chunk.subarray(start, start + LOAD_CHUNK_BYTES) };
    }
  }
}
