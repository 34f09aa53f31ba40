/** The registry half of varve.v1: requests in, messages out. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { type RegistryAccess as Access, DOCKER_HUB } from "../registry/access.js";
import { login, logout } from "../registry/login.js";
import { InvalidArgumentError } from "../system/errors.js";
import { type Caller, ownersOnly } from "./caller.js";
import type { Core } from "./core.js";
import type {
  PullImageRequest,
  PullImageResponseSchema,
  PushImageRequest,
  PushImageResponseSchema,
  RegistryAccess,
  Varve,
} from "./gen/varve/v1/varve_pb.js";
import type { CallContext, Handlers } from "./grpc-adapter.js";
import { toProgress } from "./messages.js";
import { withProgress } from "./progress-stream.js";
import { parsePolicy, pullImage } from "./use-cases/pull-image.js";
import { pushImage } from "./use-cases/push-image.js";

type RegistryMethods = "pullImage" | "pushImage" | "login" | "logout";

/** Handlers of the registry methods. */
export function registryHandlers(core: Core): Pick<Handlers<typeof Varve>, RegistryMethods> {
  return {
    pullImage: (request, context) => pull(core, request, context),
    pushImage: (request, context) => push(core, request, context),
    login: async ({ registry, access }, { signal, caller }) => {
      ownersOnly(caller, `log in to ${registry}`, NO_FILES);
      const means = toAccess(access, caller);
      if (means.credentials === undefined) {
        throw new InvalidArgumentError("log in: needs a user name and a password");
      }
      const domain = domainOf(registry);
      return { keptIn: await login(core.registries, domain, means.credentials, means, signal) };
    },
    logout: async ({ registry, access }, { caller }) => {
      ownersOnly(caller, `log out of ${registry}`, NO_FILES);
      const means = toAccess(access, caller);
      return { removedFrom: await logout(core.registries, domainOf(registry), means) };
    },
  };
}

/** "https://registry.example/v2/" → "registry.example". @throws InvalidArgumentError */
function domainOf(registry: string): string {
  const name = registry.replace(/^https?:\/\//, "").replace(/(?:\/v[12])?\/*$/, "");
  if (name === "" || name === "index.docker.io" || name === "registry-1.docker.io") {
    return DOCKER_HUB;
  }
  if (/^(?:[a-zA-Z0-9.-]+|\[[a-fA-F0-9:]+\])(?::\d+)?$/.test(name)) return name;
  throw new InvalidArgumentError(
    `registry ${JSON.stringify(registry)}: want a host name with an optional port`,
  );
}

const NO_FILES =
  "the daemon would read and write files with credentials as itself; give --creds with the pull or push";

/**
 * How a registry is reached for a caller: the caller's environment goes before the daemon's. A guest's
 * would have the daemon read files, and run credential helpers, that the guest names: it does not count,
 * and nobody else's credentials are used for a guest.
 */
export function toAccess(access: RegistryAccess | undefined, { isOwner }: Caller): Access {
  const { username = "", password = "" } = access ?? {};
  return {
    ...(username === "" ? {} : { credentials: { username, password } }),
    plainHttp: access?.plainHttp ?? false,
    skipTlsVerify: access?.skipTlsVerify ?? false,
    ...(isOwner
      ? { environment: { ...process.env, ...access?.environment } }
      : { environment: { ...process.env, HOME: "" }, isWithoutFiles: true }),
  };
}

async function* pull(
  core: Core,
  request: PullImageRequest,
  context: CallContext,
): AsyncGenerator<MessageInitShape<typeof PullImageResponseSchema>> {
  const { signal, caller } = context;
  const { reference, platforms, allPlatforms, noUnpack } = request;
  const options = {
    ...{ reference, platforms, allPlatforms, signal },
    policy: parsePolicy(request.policy, "always"),
    unpack: !noUnpack,
    access: toAccess(request.access, caller),
  };
  const work = withProgress((onProgress) => pullImage(core, { ...options, onProgress }), context);
  for await (const item of work) {
    if ("progress" in item) yield { progress: toProgress(item.progress) };
    else yield { image: item.result };
  }
}

async function* push(
  core: Core,
  request: PushImageRequest,
  context: CallContext,
): AsyncGenerator<MessageInitShape<typeof PushImageResponseSchema>> {
  const { signal, caller } = context;
  const { reference, destination, platform, allPlatforms } = request;
  const access = toAccess(request.access, caller);
  const options = { reference, destination, platform, allPlatforms, access, signal };
  const work = withProgress((onProgress) => pushImage(core, { ...options, onProgress }), context);
  for await (const item of work) {
    if ("progress" in item) yield { progress: toProgress(item.progress) };
    else yield { image: { ...item.result, size: BigInt(item.result.size) } };
  }
}
