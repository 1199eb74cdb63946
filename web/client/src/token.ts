/** The visitor's token: asks the app for it, and again before it ends or after the hub has refused it. */

import type { TokenOption } from "./api.js";
import { createTimer } from "./timer.js";

/** Timers of hidden tabs may fire a minute late; the hub accepts a new token for 30 s after the expiry. */
const BEFORE_EXPIRY = 60_000;

/** The shortest time (ms) between two renewals, and the delay after a failed one, which doubles up to the longest. */
const MIN_DELAY = 5_000;
const MAX_DELAY = 60_000;

/** Returns the milliseconds until the token must be renewed; NaN if it does not say when it ends. */
export function renewalDelay(token: string, now: number): number {
  try {
    const payload = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
    const left = (JSON.parse(atob(payload)) as { exp: number }).exp * 1_000 - now;
    return Math.max(MIN_DELAY, left / 2, left - BEFORE_EXPIRY);
  } catch {
    return NaN;
  }
}

export interface TokenSource {
  /** A token, or a function that returns one. */
  option: TokenOption | undefined;
  /** The newest token. */
  current: string | undefined;
  /** Returns whether the app may give another token by itself. */
  isRenewable(): boolean;
  /** Gets the token of a new connection. */
  get(): Promise<string | undefined>;
  /** Calls `use` with each new token until `stop()`, each before the last one ends by the clock `now`. */
  keep(use: (token: string) => void): void;
  /** Asks now, and goes on as `keep` if the app gives a new token, and else as `retry`. */
  renew(use: (token: string) => void): Promise<void>;
  /** Asks after a delay, which doubles until the next `keep`. */
  retry(use: (token: string) => void): void;
  stop(): void;
}

export function createToken(
  option: TokenOption | undefined,
  now: () => number,
  onError: (reason: unknown) => void,
): TokenSource {
  /** Number of the newest request. The results of earlier ones are ignored. */
  let request = 0;
  let wait = MIN_DELAY;
  const timer = createTimer();

  const ask = async (): Promise<string | undefined> =>
    (source.isRenewable() ? await (source.option as () => string)() : (source.option as string)) || undefined;

  function stop(): number {
    timer.clear();
    return ++request;
  }

  function renewAfter(ms: number, use: (token: string) => void): void {
    if (source.isRenewable() && ms) timer.set(ms, () => source.renew(use));
  }

  const source: TokenSource = {
    option,
    current: undefined,
    isRenewable: () => typeof source.option === "function",
    async get() {
      const mine = stop();
      const token = await ask();
      if (mine === request) source.current = token;
      return token;
    },
    keep(use) {
      stop();
      wait = MIN_DELAY;
      renewAfter(renewalDelay(source.current!, now()), use);
    },
    async renew(use) {
      const mine = stop();
      const token = await ask().catch((reason: unknown) => void onError(reason));
      if (mine !== request) return;
      if (!token || token === source.current) return source.retry(use);
      source.current = token;
      source.keep(use);
      use(token);
    },
    retry(use) {
      renewAfter(wait * (1 - Math.random() / 2), use);
      wait = Math.min(MAX_DELAY, wait * 2);
    },
    stop,
  };
  return source;
}
