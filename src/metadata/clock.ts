/**
 * A wall clock in nanoseconds. `Date.now()` stops at milliseconds, which is too coarse for the
 * creation times that containerd's snapshotter suite compares against its own nanosecond clock.
 */

const MILLISECOND = 1_000_000n;
/** How far a calibration may be off, generously. */
const TOLERANCE = 50_000n;
/** A tick is well observed when it was seen within this time. */
const SHARP = 5_000n;
const MAX_TICKS = 10;

/** Wall clock minus monotonic clock, in nanoseconds. */
let offsetNs = calibrate();

/** Watches the millisecond clock tick until a tick was seen without the scheduler in between. */
function calibrate(): bigint {
  let best = observeTick();
  for (let tick = 1; tick < MAX_TICKS && best.blur > SHARP; tick++) {
    const next = observeTick();
    if (next.blur < best.blur) best = next;
  }
  return best.offset;
}

function observeTick(): { offset: bigint; blur: bigint } {
  // Read before the last look that saw the old millisecond, and after the first that saw the new one:
  // the tick was in between, wherever the scheduler interfered.
  let before = process.hrtime.bigint();
  let between = before;
  const start = Date.now();
  for (;;) {
    const now = Date.now();
    const after = process.hrtime.bigint();
    if (now !== start) return { offset: BigInt(now) * MILLISECOND - after, blur: after - before };
    before = between;
    between = after;
  }
}

/**
 * Nanoseconds since 1970, to some microseconds, never outside the milliseconds that `Date.now()` shows
 * before and after the call. Takes some milliseconds when the wall clock has been set.
 */
export function nowNs(): bigint {
  const earliest = BigInt(Date.now()) * MILLISECOND;
  const now = process.hrtime.bigint() + offsetNs;
  const latest = BigInt(Date.now() + 1) * MILLISECOND - 1n;
  if (now < earliest - TOLERANCE || now > latest + TOLERANCE) {
    offsetNs = calibrate();
    return process.hrtime.bigint() + offsetNs;
  }
  if (now < earliest) return earliest;
  return now > latest ? latest : now;
}
