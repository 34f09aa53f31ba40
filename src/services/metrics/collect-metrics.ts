/** The daemon's state in Prometheus' text format. */

import { OPERATIONS } from "../../fuse/operations.js";
import { DURATION_BOUNDS, SAMPLE, type Tally, type TallyReading } from "../../system/tally.js";
import type { Core } from "../core.js";
import { Exposition } from "./exposition.js";

/** Names and meanings are part of the API: they do not change within v1. */
export function collectMetrics(core: Core): string {
  const page = new Exposition();
  daemonMetrics(page, core);
  storeMetrics(page, core);
  callMetrics(page, core);
  viewMetrics(page, viewReadings(core));
  return page.text;
}

function daemonMetrics(page: Exposition, { machine, starts }: Core): void {
  const { rss, heapUsed } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  page
    .family("varve_info", "gauge", "Always 1; the labels say what runs.")
    .sample(1, { version: machine.version, node: process.versions.node });
  page
    .family("varve_daemon_starts_total", "counter", "Starts of a daemon on this state directory.")
    .sample(starts);
  page
    .family("varve_daemon_uptime_seconds", "gauge", "Since the daemon at work started.")
    .sample(process.uptime());
  page
    .family("varve_daemon_cpu_seconds_total", "counter", "CPU time, all threads.")
    .sample((user + system) / 1e6);
  page.family("varve_daemon_resident_bytes", "gauge", "Memory, as ps counts.").sample(rss);
  page
    .family("varve_daemon_heap_bytes", "gauge", "JavaScript objects of the main thread.")
    .sample(heapUsed);
}

function storeMetrics(page: Exposition, { database, views }: Core): void {
  const blobs = database.blobs.list();
  const snapshots = database.snapshots.list();
  const all = views.list();
  const mounted = all.filter((view) => views.isMounted(view)).length;
  page
    .family("varve_images", "gauge", "Names of images.")
    .sample(database.references.list().length);
  page.family("varve_blobs", "gauge", "Blobs in the content store.").sample(blobs.length);
  page.family("varve_blob_bytes", "gauge", "What they take.").sample(database.blobs.totalBytes());
  page.family("varve_snapshots", "gauge", "Unpacked layers.").sample(snapshots.length);
  page
    .family("varve_snapshot_bytes", "gauge", "What they take, without what containerd unpacked.")
    .sample(snapshots.reduce((sum, row) => sum + row.sizeBytes, 0));
  page
    .family("varve_views", "gauge", "Views, by whether they are mounted.")
    .sample(mounted, { state: "mounted" })
    .sample(all.length - mounted, { state: "unmounted" });
  page
    .family("varve_containerd_snapshots", "gauge", "containerd's snapshots.")
    .sample(database.containerd.list().length);
}

function callMetrics(page: Exposition, { activity }: Core): void {
  const calls = page.family("varve_call_seconds", "histogram", "Calls of the API that have ended.");
  for (const { method, code, ...figures } of activity.calls()) {
    calls.histogram(figures, { method, code });
  }
  const running = page.family("varve_calls_running", "gauge", "Calls that are under way.");
  for (const [method, count] of activity.underWay()) running.sample(count, { method });
  const events = page.family("varve_events_total", "counter", "What happened: see varve events.");
  for (const [key, count] of activity.events()) {
    const [type = "", action = ""] = key.split(" ");
    events.sample(count, { type, action });
  }
}

type Reading = { readonly view: string; readonly reading: TallyReading };

function viewReadings({ tallies, views, database }: Core): Reading[] {
  const names = new Map(views.list().map((view) => [view.id, view.name]));
  const keys = new Map(database.containerd.list().map((row) => [`containerd-${row.id}`, row.key]));
  return [...tallies].map(([viewId, tally]: [string, Tally]) => ({
    view: names.get(viewId) ?? keys.get(viewId) ?? viewId,
    reading: tally.read(),
  }));
}

function viewMetrics(page: Exposition, readings: readonly Reading[]): void {
  const requests = page.family(
    "varve_view_requests_total",
    "counter",
    "Requests of the kernel for a mounted view; what its caches answer does not count.",
  );
  for (const { view, reading } of readings) {
    for (const { opcode, count } of reading.requests) {
      requests.sample(count, { view, operation: operationName(opcode) });
    }
  }
  const times = page.family(
    "varve_view_request_seconds",
    "histogram",
    `How long every ${SAMPLE}th of them took to answer.`,
  );
  for (const { view, reading } of readings) {
    for (const { opcode, timed, classes, seconds } of reading.requests) {
      if (timed === 0) continue;
      const figures = { bounds: DURATION_BOUNDS, classes, sum: seconds };
      times.histogram(figures, { view, operation: operationName(opcode) });
    }
  }
  countMetrics(page, readings);
}

function operationName(opcode: number): string {
  return OPERATIONS[opcode]?.name ?? String(opcode);
}

function countMetrics(page: Exposition, readings: readonly Reading[]): void {
  const opens = page.family(
    "varve_view_opens_total",
    "counter",
    "Opens in passthrough mode, by who serves the data: the kernel from the file itself, or the daemon through the page cache.",
  );
  for (const { view, reading } of readings) {
    opens.sample(reading.counts.passthroughOpens, { view, data: "passthrough" });
    opens.sample(reading.counts.cachedOpens, { view, data: "cached" });
  }
  const singles = [
    ["varve_view_copy_ups_total", "copyUps", "Objects copied from the image to be changed."],
    ["varve_view_copied_bytes_total", "copiedBytes", "Data copied for that."],
    ["varve_view_read_bytes_total", "readBytes", "Data read through the daemon."],
    ["varve_view_written_bytes_total", "writtenBytes", "Data written through the daemon."],
  ] as const;
  for (const [name, count, help] of singles) {
    const family = page.family(name, "counter", help);
    for (const { view, reading } of readings) family.sample(reading.counts[count], { view });
  }
}
