// Keeps the screen awake. The browser releases the lock when the page is hidden; it is acquired again when the page is
// visible. Browsers without the API, and pages without HTTPS, have no lock.

export class WakeLock {
  readonly #onChange: () => void;
  #wanted = false;
  #sentinel: WakeLockSentinel | undefined;

  /** Calls `onChange` whenever `held` changes. */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
    document.addEventListener("visibilitychange", () => void this.#acquire());
  }

  /** Whether the screen is kept awake now. */
  get held(): boolean {
    return this.#sentinel !== undefined;
  }

  /** Keeps the screen awake, or no longer. */
  set(wanted: boolean): void {
    this.#wanted = wanted;
    if (wanted) void this.#acquire();
    else void this.#sentinel?.release();
  }

  async #acquire(): Promise<void> {
    if (!this.#wanted || this.held || document.hidden) return;
    let sentinel: WakeLockSentinel;
    try {
      sentinel = await navigator.wakeLock.request("screen");
    } catch {
      return; // No such API, a low battery, or a page that is already hidden again.
    }
    if (!this.#wanted || this.held) return void sentinel.release();
    this.#sentinel = sentinel;
    sentinel.addEventListener("release", () => {
      this.#sentinel = undefined;
      this.#onChange();
    });
    this.#onChange();
  }
}
