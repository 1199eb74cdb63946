/** When a token is to be renewed. Pure but for the time: knows JWTs, and neither sockets nor timers. */

/** Timers of hidden tabs may be a minute late, and the hub waits half a minute. */
const BEFORE_ITS_END = 60_000;

const AT_LEAST = 5_000;

/** More than a timer can hold; what is left over is as good a moment as any. */
const TOO_MUCH = 2 ** 31;

/** Milliseconds until a new token should be got. */
export function renewIn(token: string, now = Date.now()): number {
  const payload = token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/");
  const { exp } = JSON.parse(atob(payload)) as { exp: number };
  return Math.max(AT_LEAST, (exp * 1_000 - now - BEFORE_ITS_END) % TOO_MUCH);
}
