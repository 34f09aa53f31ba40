/**
 * A wall clock in nanoseconds. `Date.now()` stops at milliseconds, which is too coarse for the
 * creation times that containerd's snapshotter suite compares against its own nanosecond clock.
 */

const MILLISECOND = 1_000_000n;

/** Wall clock minus monotonic clock, in nanoseconds; corrected as the wall clock is slewed or set. */
let offsetNs = calibrate();

function calibrate(): bigint {
  // Wait for the next tick of the millisecond clock: at that moment it is exact to about a µs.
  const start = Date.now();
  let now = start;
  while (now === start) now = Date.now();
  return BigInt(now) * MILLISECOND - process.hrtime.bigint();
}

/**
 * Nanoseconds since 1970, to about a microsecond. Follows steps of the wall clock: the result always
 * lies within the millisecond that `Date.now()` shows.
 */
export function nowNs(): bigint {
  const monotonic = process.hrtime.bigint();
  const floor = BigInt(Date.now()) * MILLISECOND;
  const now = monotonic + offsetNs;
  if (now >= floor && now < floor + MILLISECOND) return now;
  const clamped = now < floor ? floor : floor + MILLISECOND - 1n;
  offsetNs += clamped - now;
  return clamped;
}
