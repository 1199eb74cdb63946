// Announcements to screen readers through one live region: own changes at once, others seldom.

/** The shortest time between two announcements of other people, in ms. */
const INTERVAL = 60_000;

/** The smallest change of the count that is announced, as a part of the last announced one. */
const LARGE = 0.25;

export class Announcer {
  readonly #write: (text: string) => void;
  #others: boolean;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The count of the last announcement. */
  #announced = 0;
  #newest: { present: number; text: string } | undefined;

  /** `write` sets the text of the live region. `others`: announce other people too. */
  constructor(write: (text: string) => void, others: boolean) {
    this.#write = write;
    this.#others = others;
  }

  /** Switches the announcements of other people on or off. */
  setOthers(others: boolean): void {
    this.#others = others;
    this.#announceOthers();
  }

  /** Announces a change of the visitor's own at once. `present`: the text names this count. */
  own(text: string, present?: number): void {
    this.#write(text);
    if (present === undefined) return;
    this.#announced = present;
    this.#newest = undefined;
    this.#wait();
  }

  /** Announces the room if its count changed much, at most once a minute. A newer text replaces a waiting one. */
  room(present: number, text: string): void {
    this.#newest = { present, text };
    if (this.#timer === undefined) this.#announceOthers();
  }

  #announceOthers(): void {
    const newest = this.#newest;
    if (!this.#others || this.#timer !== undefined || !newest) return;
    if (Math.abs(newest.present - this.#announced) < Math.max(1, this.#announced * LARGE)) return;
    this.own(newest.text, newest.present);
  }

  #wait(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#announceOthers();
    }, INTERVAL);
  }
}
