/** When to renew a JWT. Pure except for the clock: no sockets and no timers. */

/** Timers of hidden tabs may fire a minute late; the hub accepts a new token for 30 s after the expiry. */
const BEFORE_EXPIRY = 60_000;

const MIN_DELAY = 5_000;

/** setTimeout's limit. A later expiry is taken modulo this, so the token is renewed earlier than needed. */
const TIMER_LIMIT = 2 ** 31;

/** Returns the milliseconds until the token must be renewed. */
export function renewalDelay(token: string, now = Date.now()): number {
  const payload = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
  const { exp } = JSON.parse(atob(payload)) as { exp: number };
  return Math.max(MIN_DELAY, (exp * 1_000 - now - BEFORE_EXPIRY) % TIMER_LIMIT);
}
