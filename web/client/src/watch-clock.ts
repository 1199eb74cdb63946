/** A stopwatch on the monotonic clock: independent of wall clock changes and of throttling in hidden tabs. */
export class WatchClock {
  #accumulated = 0;
  #startedAt: number | undefined;

  /** Total running time in ms. */
  get elapsed(): number {
    return this.#accumulated + (this.#startedAt === undefined ? 0 : performance.now() - this.#startedAt);
  }

  start(): void {
    this.#startedAt ??= performance.now();
  }

  stop(): void {
    this.#accumulated = this.elapsed;
    this.#startedAt = undefined;
  }
}
