/** The visitor's token: asks the app for it, and again before it ends or after the hub has refused it. */

import type { TokenOption } from "./api.js";

/** Timers of hidden tabs may fire a minute late; the hub accepts a new token for 30 s after the expiry. */
const BEFORE_EXPIRY = 60_000;

/** The shortest time (ms) between two renewals, and the first delay after a failed one. */
const MIN_DELAY = 5_000;

/** The longest delay after a failed renewal. */
const MAX_DELAY = 60_000;

/** setTimeout's limit. A token that ends later is renewed earlier than needed. */
const TIMER_LIMIT = 2 ** 31 - 1;

/** Returns the milliseconds until the token must be renewed, or undefined if it does not say when it ends. */
export function renewalDelay(token: string, now: number): number | undefined {
  try {
    const payload = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    const left = (JSON.parse(atob(payload)) as { exp: number }).exp * 1_000 - now;
    const wait = Math.min(TIMER_LIMIT, Math.max(MIN_DELAY, left / 2, left - BEFORE_EXPIRY));
    return Number.isNaN(wait) ? undefined : wait;
  } catch {
    return undefined;
  }
}

export class TokenSource {
  /** The newest token. */
  current: string | undefined;

  #option: TokenOption | undefined;
  #onError: (reason: unknown) => void;
  /** Number of the newest request. The results of earlier ones are ignored. */
  #request = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;

  constructor(option: TokenOption | undefined, onError: (reason: unknown) => void) {
    this.#option = option;
    this.#onError = onError;
  }

  /** Whether the app may give another token by itself. */
  get isRenewable(): boolean {
    return typeof this.#option === "function";
  }

  set(option: TokenOption | undefined): void {
    this.#option = option;
  }

  /** Gets the token of a new connection. */
  async get(): Promise<string | undefined> {
    this.stop();
    const request = this.#request;
    const token = await this.#ask();
    if (request === this.#request) this.current = token;
    return token;
  }

  /**
   * Calls `use` with each new token from now on, until `stop()`: before the current one ends by the clock `now`, or
   * soon, if it was refused.
   */
  renew(use: (token: string) => void, now?: () => number): void {
    this.stop();
    this.#failures = 0;
    const wait = now ? this.current && renewalDelay(this.current, now()) : MIN_DELAY;
    if (this.isRenewable && wait) this.#renewAfter(wait, use, now);
  }

  /** Asks now, and calls `use` if there is a new token; then as `renew`. */
  async renewNow(use: (token: string) => void, now?: () => number): Promise<void> {
    this.stop();
    const request = this.#request;
    const token = await this.#ask().catch((reason: unknown) => void this.#onError(reason));
    if (request !== this.#request) return;
    if (token && token !== this.current) {
      this.current = token;
      use(token);
      // `use` may have connected again.
      if (request === this.#request) this.renew(use, now);
    } else if (this.isRenewable) {
      const wait = Math.min(MAX_DELAY, MIN_DELAY * 2 ** this.#failures++);
      this.#renewAfter(wait * (1 + Math.random()) / 2, use, now);
    }
  }

  stop(): void {
    this.#request++;
    clearTimeout(this.#timer);
  }

  #renewAfter(wait: number, use: (token: string) => void, now?: () => number): void {
    this.#timer = setTimeout(() => void this.renewNow(use, now), wait);
  }

  async #ask(): Promise<string | undefined> {
    const option = this.#option;
    return (typeof option === "function" ? await option() : option) || undefined;
  }
}
