/**
 * `varve/client`: a typed client of the varve daemon, its messages and its errors.
 *
 *     const varve = VarveClient.connect({ socket: "/run/varve/varve.sock" });
 *     const { images } = await varve.listImages();
 */

export * from "../services/gen/varve/v1/varve_pb.js";
export * from "../system/errors.js";
export { type AutostartOptions, type AutostartResult, ensureDaemon } from "./autostart.js";
export { VarveClient } from "./client.js";
export { type EndpointFlags, resolveSocket } from "./endpoint.js";
export type { CallOptions } from "./transport.js";
