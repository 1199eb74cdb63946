/**
 * The hub's clock, estimated as NTP does from the `serverTime` of its messages: of several samples, the one with the
 * shortest round trip counts. It runs on the monotonic clock, so changes of the device's clock do not matter. Once it
 * runs it does not jump: a correction is spread over time. The exception is the first sample after a sleep, in which
 * the monotonic clock of many systems stands still.
 */

/** Correction per ms: 50 ms a second. */
const SLEW = 0.05;

/** Assumed drift between the two clocks, per ms, by which a sample gets worse with its age. */
const DRIFT = 1e-4;

/** Number of samples that count. */
const SAMPLES = 8;

/** After a sleep, a difference above this (ms) is corrected at once. */
const STEP = 1_000;

interface Sample {
  offset: number;
  /** Half of the round trip: the true offset is at most this far away. */
  error: number;
  at: number;
}

export class HubClock {
  #samples: Sample[] = [];
  /** The hub's time minus the monotonic clock, as applied at `#appliedAt`. Undefined before the first sample. */
  #offset: number | undefined;
  #appliedAt = 0;
  #device = 0;
  #target = 0;
  #mayStep = false;

  get isKnown(): boolean {
    return this.#offset !== undefined;
  }

  /** The largest possible error (ms) of the newest sample. */
  error = Infinity;

  /** Returns the hub's time; before the first sample, the device's. */
  now(): number {
    return performance.now() + this.offset;
  }

  /** The time that `now` returns minus the monotonic clock. */
  get offset(): number {
    if (this.#offset === undefined) return this.#deviceOffset();
    const now = performance.now();
    const limit = (now - this.#appliedAt) * SLEW;
    this.#offset += Math.max(-limit, Math.min(limit, this.#target - this.#offset));
    this.#appliedAt = now;
    return this.#offset;
  }

  /** How much the device's clock is behind the hub's, in ms. */
  get deviceIsBehind(): number {
    return this.offset - this.#deviceOffset();
  }

  /** The device's time minus the monotonic clock: constant, until the device's clock is set or it sleeps. */
  #deviceOffset(): number {
    const offset = Date.now() - performance.now();
    return Math.abs(offset - this.#device) > 100 ? (this.#device = offset) : this.#device;
  }

  /** Takes the hub's answer to what was sent at `sentAt` of the monotonic clock. */
  sample(serverTime: number, sentAt: number): void {
    const at = performance.now();
    this.error = (at - sentAt) / 2;
    const sample = { offset: serverTime - (sentAt + at) / 2, error: this.error, at };
    // The range in which the true offset is.
    const radius = (of: Sample): number => of.error + (at - of.at) * DRIFT;
    // An earlier sample that contradicts this one is of before a sleep, or of another node's clock.
    const agrees = (of: Sample): boolean => Math.abs(of.offset - sample.offset) <= radius(of) + radius(sample);
    this.#samples = [sample, ...this.#samples.filter(agrees)].slice(0, SAMPLES);
    this.#target = this.#samples.reduce((best, of) => (radius(of) < radius(best) ? of : best)).offset;
    void this.offset; // what has been corrected so far
    if (this.#offset === undefined || (this.#mayStep && Math.abs(this.#target - this.#offset) > STEP)) {
      this.#offset = this.#target;
      this.#appliedAt = at;
    }
    this.#mayStep = false;
  }

  /** Notes that the page may have slept: the next sample may step the clock. */
  wake(): void {
    this.#mayStep = true;
  }
}
