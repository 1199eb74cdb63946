/** A stopwatch. By the monotonic clock, which no change of the wall clock moves and no hidden tab slows down. */
export class WatchClock {
  #banked = 0;
  #since: number | undefined;

  /** Milliseconds for which it has run. */
  get elapsed(): number {
    return this.#banked + (this.#since === undefined ? 0 : performance.now() - this.#since);
  }

  start(): void {
    this.#since ??= performance.now();
  }

  stop(): void {
    this.#banked = this.elapsed;
    this.#since = undefined;
  }
}
