// Speaks to screen readers through one live region, and never more often than they can follow.

const PAUSE = 5_000; // ms

export class Announcer {
  readonly #speak: (text: string) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #next: string | undefined;

  /** `speak` changes the live region. */
  constructor(speak: (text: string) => void) {
    this.#speak = speak;
  }

  /** Says this now, or, soon after something else, when that has been heard. Only the newest counts. */
  say(text: string): void {
    this.#next = text;
    if (this.#timer === undefined) this.#sayNext();
  }

  #sayNext(): void {
    this.#timer = undefined;
    if (this.#next === undefined) return;
    this.#speak(this.#next);
    this.#next = undefined;
    this.#timer = setTimeout(() => this.#sayNext(), PAUSE);
  }
}
