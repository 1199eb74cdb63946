/** The handle of a sit: counts down to its end by the hub's clock. Knows no socket. */

import type { Sit, SitEnd } from "./api.js";

/** setTimeout's limit. */
const TIMER_LIMIT = 2 ** 31 - 1;

export interface SitOwner {
  hubNow(): number;
  onSitEnd(sit: SitHandle, reason: SitEnd): void;
}

export class SitHandle extends EventTarget implements Sit {
  until: number;
  #owner: SitOwner;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;

  constructor(owner: SitOwner, until: number) {
    super();
    this.#owner = owner;
    this.until = until;
    this.#arm();
  }

  get remaining(): number {
    return this.#isOver ? 0 : Math.max(0, this.until - this.#owner.hubNow());
  }

  end(): void {
    this.finish("ended");
  }

  /** Follows the hub's time of its end. */
  move(until: number): void {
    if (this.#isOver || until === this.until) return;
    this.until = until;
    this.#arm();
    this.dispatchEvent(new Event("change"));
  }

  finish(reason: SitEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#owner.onSitEnd(this, reason);
    this.dispatchEvent(new CustomEvent("end", { detail: { reason } }));
  }

  #arm(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => (this.remaining > 0 ? this.#arm() : this.finish("completed")),
      Math.min(TIMER_LIMIT, this.remaining),
    );
  }
}
