/** When to come back after a connection has ended. Pure: knows close codes, and neither sockets nor timers. */

const FIRST = 500;
const LONGEST = 30_000;

/**
 * Milliseconds to wait before the next try, or undefined to stay away.
 *
 * Full jitter: any moment up to a limit that doubles with every failed try, so that those who lost the
 * hub together do not come back together.
 */
export function delay(code: number, tries: number, random = Math.random): number | undefined {
  switch (code) {
    case 1008: // the hub does not want us
      return undefined;
    case 1012: // it restarts, and is back in a moment
      return random() * 5_000;
    case 1013: // it has too much to do
      return LONGEST + random() * LONGEST;
    default:
      return random() * Math.min(LONGEST, FIRST * 2 ** tries);
  }
}
