/** Reconnect delays: exponential backoff with full jitter. Pure: knows close codes, no sockets and no timers. */

const INITIAL = 500; // ms
const MAX = 30_000; // ms

/**
 * Returns the milliseconds to wait before the next attempt.
 *
 * Full jitter: the delay is random, from 0 to a limit that doubles with each failed attempt. Clients that lost the
 * hub at the same time therefore do not reconnect at the same time.
 */
export function delay(attempts: number): number {
  return Math.random() * Math.min(MAX, INITIAL * 2 ** attempts);
}

/** Returns the milliseconds for which the hub asks with this close code not to reconnect to it. */
export function requestedWait(code: number): number {
  if (code === 1012) return Math.random() * 5_000; // the hub restarts
  if (code === 1013) return MAX + Math.random() * MAX; // the hub is overloaded
  return 0;
}
