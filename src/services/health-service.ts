/** gRPC's standard health service. */

import { once } from "node:events";
import { NotFoundError } from "../system/errors.js";
import {
  Health,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "./gen/grpc/health/v1/health_pb.js";
import type { Handlers } from "./grpc-adapter.js";

/**
 * Handlers of the health methods, for a server of `services` (full names). The daemon answers only when
 * it is ready, so the answer is SERVING until `ending` fires.
 */
export function healthHandlers(
  services: readonly string[],
  ending: AbortSignal,
): Handlers<typeof Health> {
  const known = ["", ...services, Health.typeName];
  const status = () => (ending.aborted ? ServingStatus.NOT_SERVING : ServingStatus.SERVING);
  return {
    check: ({ service }) => {
      if (known.includes(service)) return { status: status() };
      throw new NotFoundError(`health of ${JSON.stringify(service)}: no such service`);
    },
    watch: async function* ({ service }, { signal }) {
      if (!known.includes(service)) {
        // The protocol's rule: the service may come later, so the stream stays open.
        yield { status: ServingStatus.SERVICE_UNKNOWN };
        await firstAbort(signal, ending);
        return;
      }
      yield { status: status() };
      await firstAbort(signal, ending);
      if (!signal.aborted) yield { status: status() };
    },
  };
}

async function firstAbort(...signals: readonly AbortSignal[]): Promise<void> {
  const any = AbortSignal.any([...signals]);
  if (!any.aborted) await once(any, "abort");
}
