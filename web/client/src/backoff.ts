/** Reconnect delays: exponential backoff with full jitter. Pure: knows close codes, no sockets and no timers. */

const INITIAL = 500; // ms
const MAX = 30_000; // ms

/**
 * Returns the milliseconds to wait before the next attempt, or undefined if the client must not reconnect.
 *
 * Full jitter: the delay is random, from 0 to a limit that doubles with each failed attempt. Clients that lost the
 * hub at the same time therefore do not reconnect at the same time.
 */
export function delay(code: number, attempts: number, random = Math.random): number | undefined {
  switch (code) {
    case 1008: // policy violation: the hub rejects this client
      return undefined;
    case 1012: // the hub restarts
      return random() * 5_000;
    case 1013: // the hub is overloaded
      return MAX + random() * MAX;
    default:
      return random() * Math.min(MAX, INITIAL * 2 ** attempts);
  }
}
