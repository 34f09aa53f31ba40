/**
 * varve for programs: the calls of `VarveClient` put together into what one mostly wants, without streams and
 * messages. Everything else is in `Varve.client`.
 */

import path from "node:path";
import {
  Change_Kind,
  type CommittedImage,
  type Image,
  type LoadedImage,
  type Progress,
  type PulledImage,
  type View,
} from "../services/gen/varve/v1/varve_pb.js";
import { UnavailableError } from "../system/errors.js";
import { ensureDaemon } from "./autostart.js";
import { VarveClient } from "./client.js";
import { resolveSocket } from "./endpoint.js";

/** Which daemon, and whether to start it. Unset paths are those of the command line. */
export interface OpenOptions {
  readonly socket?: string;
  readonly root?: string;
  readonly state?: string;
  readonly config?: string;
  /** False: fail when no daemon runs. */
  readonly autostart?: boolean;
}

/** What every long call takes. */
export interface WorkOptions {
  /** Ends the work, in the daemon, too. */
  readonly signal?: AbortSignal;
  /** Told of each step: a layer's bytes, what is done with it. */
  readonly onProgress?: (progress: Progress) => void;
}

/** How to pull. */
export interface PullOptions extends WorkOptions {
  /** "linux/arm64"; the machine's own when unset. */
  readonly platform?: string;
  readonly username?: string;
  readonly password?: string;
}

/** How to mount. */
export interface MountOptions extends WorkOptions {
  /** The view's name; a made-up one when unset. */
  readonly name?: string;
  /** Where; below the state directory when unset. */
  readonly target?: string;
  readonly readOnly?: boolean;
  /** Whether to ask a registry; "missing" when unset. */
  readonly pull?: "always" | "missing" | "never";
  readonly io?: "cached" | "passthrough" | "auto";
}

/** How to commit. */
export interface CommitOptions extends WorkOptions {
  /** Instructions of a Dockerfile: `CMD ["sh"]`, `ENV A=b`. */
  readonly changes?: readonly string[];
  readonly message?: string;
  readonly author?: string;
}

/** One path that is not as in the image. */
export interface ViewChange {
  readonly kind: "added" | "changed" | "deleted";
  /** Absolute in the view; bytes that are not UTF-8 are replaced. */
  readonly path: string;
}

/** The last of the values that a stream's messages have; its progress goes to the options' callback. */
async function last<M extends { readonly progress?: Progress | undefined }, T>(
  stream: AsyncIterable<M>,
  { onProgress }: WorkOptions,
  pick: (message: M) => T | undefined,
): Promise<T> {
  let value: T | undefined;
  for await (const message of stream) {
    if (message.progress !== undefined) onProgress?.(message.progress);
    value = pick(message) ?? value;
  }
  if (value === undefined) throw new UnavailableError("varve: the daemon ended the call early");
  return value;
}

const callOptionsOf = ({ signal, onProgress }: WorkOptions) => ({
  ...(signal === undefined ? {} : { signal }),
  quiet: onProgress === undefined,
});

/** A connection to a daemon. */
export class Varve {
  readonly client: VarveClient;

  private constructor(client: VarveClient) {
    this.client = client;
  }

  /**
   * Connects to the daemon of the command line, which is started when none runs.
   *
   * @throws UnavailableError none runs, and none could be or may be started
   */
  static async open(options: OpenOptions = {}): Promise<Varve> {
    const socket = await resolveSocket(options);
    if (options.autostart !== false) {
      const { root, state, config } = options;
      await ensureDaemon({ socket, root, state, config });
    }
    return new Varve(VarveClient.connect({ socket }));
  }

  /** Ends the connection; daemon and views live on. */
  close(): void {
    this.client.close();
  }

  /** All images. */
  async images(): Promise<Image[]> {
    return (await this.client.listImages()).images;
  }

  /** Fetches an image from a registry, and unpacks it. */
  pull(reference: string, options: PullOptions = {}): Promise<PulledImage> {
    const { platform, username = "", password = "" } = options;
    const platforms = platform === undefined ? [] : [platform];
    const stream = this.client.pullImage(
      { reference, platforms, access: { username, password } },
      callOptionsOf(options),
    );
    return last(stream, options, ({ image }) => image);
  }

  /** Loads the images of an archive or a directory. */
  async load(archive: string, options: WorkOptions = {}): Promise<LoadedImage[]> {
    const images: LoadedImage[] = [];
    const request = { path: path.resolve(archive) };
    for await (const message of this.client.loadImages(
      request,
      undefined,
      callOptionsOf(options),
    )) {
      if (message.progress !== undefined) options.onProgress?.(message.progress);
      if (message.loaded !== undefined) images.push(message.loaded);
    }
    return images;
  }

  /** Writes an image to an OCI archive. */
  async save(reference: string, archive: string, options: WorkOptions = {}): Promise<void> {
    const request = { references: [reference], path: path.resolve(archive) };
    for await (const { progress } of this.client.saveImages(request, callOptionsOf(options))) {
      if (progress !== undefined) options.onProgress?.(progress);
    }
  }

  /** Mounts a new view of an image. */
  async mount(image: string, options: MountOptions = {}): Promise<MountedView> {
    const { name = "", target, readOnly = false, pull = "missing", io = "" } = options;
    const stream = this.client.mountView(
      { image, name, target: target ? path.resolve(target) : "", readOnly, pull, io },
      callOptionsOf(options),
    );
    return new MountedView(this.client, await last(stream, options, ({ view }) => view));
  }

  /**
   * A view that is there already, mounted again if it is not.
   *
   * @throws NotFoundError no view has that name
   */
  async view(name: string): Promise<MountedView> {
    const stream = this.client.mountView({ name });
    return new MountedView(this.client, await last(stream, {}, ({ view }) => view));
  }
}

/** A mounted view. */
export class MountedView {
  readonly id: string;
  readonly name: string;
  /** The directory where it is mounted. */
  readonly path: string;
  readonly #client: VarveClient;

  constructor(client: VarveClient, view: View) {
    this.#client = client;
    this.id = view.id;
    this.name = view.name;
    this.path = view.target;
  }

  /** What was added, changed and deleted, in the order of paths. */
  async *changes(): AsyncGenerator<ViewChange, void, undefined> {
    for await (const { changes } of this.#client.diffView({ name: this.id })) {
      for (const { kind, path: bytes } of changes) {
        yield { kind: wordOf(kind), path: Buffer.from(bytes).toString("utf8") };
      }
    }
  }

  /** Makes an image of it. The view stays as it is. */
  commit(reference: string, options: CommitOptions = {}): Promise<CommittedImage> {
    const { changes = [], message = "", author = "" } = options;
    const stream = this.#client.commitView(
      { name: this.id, reference, changes: [...changes], message, author },
      callOptionsOf(options),
    );
    return last(stream, options, ({ image }) => image);
  }

  /** Unmounts it; what was written stays. */
  async unmount(options: { readonly force?: boolean } = {}): Promise<void> {
    await this.#client.unmountView({ name: this.id, force: options.force ?? false });
  }

  /** Unmounts it and removes it, with all that was written in it. */
  async remove(): Promise<void> {
    await this.#client.removeView({ name: this.id, force: true });
  }
}

function wordOf(kind: Change_Kind): ViewChange["kind"] {
  if (kind === Change_Kind.ADDED) return "added";
  return kind === Change_Kind.DELETED ? "deleted" : "changed";
}
