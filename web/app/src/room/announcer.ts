// Throttles announcements to screen readers through one live region.

const INTERVAL = 5_000; // ms

export class Announcer {
  readonly #write: (text: string) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pending: string | undefined;

  /** `write` sets the text of the live region. */
  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  /** Announces now, or when 5 s have passed since the last announcement. A newer text replaces a pending one. */
  announce(text: string): void {
    this.#pending = text;
    if (this.#timer === undefined) this.#flush();
  }

  #flush(): void {
    this.#timer = undefined;
    if (this.#pending === undefined) return;
    this.#write(this.#pending);
    this.#pending = undefined;
    this.#timer = setTimeout(() => this.#flush(), INTERVAL);
  }
}
