/**
 * The hub's clock, estimated as NTP does from the `serverTime` of its messages: of several samples, the one with the
 * shortest round trip counts. It runs on the monotonic clock, so changes of the device's clock do not matter. Once it
 * runs it does not jump: a correction is spread over time. The exception is the first sample after a sleep, in which
 * the monotonic clock of many systems stands still, or after a lost connection, which may be the only sign of a sleep.
 */

/** Correction per ms: 50 ms a second. */
const SLEW = 0.05;

/** Assumed drift between the two clocks, per ms, by which a sample gets worse with its age. */
const DRIFT = 1e-4;

/** Half of a round trip (ms) that is short enough. */
const PRECISE = 25;

export interface HubClock {
  /** Returns the hub's time; before the first sample, the device's. */
  now(): number;
  /** Takes the hub's answer to what was sent at `sentAt` of the monotonic clock. Returns whether the clock is precise. */
  sample(serverTime: number, sentAt: number): boolean;
  /** Notes that the page or the device may have slept: the next sample steps the clock. */
  wake(): void;
}

export function createClock(): HubClock {
  /** The offset in use, and since when. */
  let used: number | undefined;
  let usedAt = 0;
  /** The best sample. */
  let best = 0;
  let error = Infinity;
  let sampledAt = 0;
  let mayStep = false;

  function now(): number {
    if (used === undefined) return Date.now();
    const now = performance.now();
    const limit = (now - usedAt) * SLEW;
    usedAt = now;
    used += Math.max(-limit, Math.min(limit, best - used));
    return now + used;
  }

  return {
    now,
    sample(serverTime, sentAt) {
      now(); // spreads what the last sample has left
      const at = performance.now();
      const newError = (at - sentAt) / 2;
      const sample = serverTime - sentAt - newError;
      const bestError = error + (at - sampledAt) * DRIFT;
      // If they contradict, the device slept since, or the hub's clock was set.
      if (newError <= bestError || Math.abs(sample - best) > newError + bestError) {
        best = sample;
        error = newError;
        sampledAt = at;
      }
      if (used === undefined || mayStep) {
        used = best;
        usedAt = at;
      }
      mayStep = false;
      return error < PRECISE;
    },
    wake() {
      mayStep = true;
    },
  };
}
