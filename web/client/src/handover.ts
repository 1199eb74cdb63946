/** Events that go over HTTP, as posts. Pure: knows the limits of a body, and sends nothing. */

/**
 * The most characters in one post. Even of the smallest events this is not more than the 100 that the hub
 * takes at once, and even in the widest script less than the 64 KiB that a body or a beacon may have.
 */
const MOST = 12_000;

/** Events of one kind, and the address that takes them. */
export interface Post<E> {
  path: string;
  events: E[];
}

export function posts<E extends { text: string }>(events: E[]): Post<E>[] {
  const all: Post<E>[] = [];
  for (const path of ["page-view", "watch-session"]) {
    let space = 0;
    for (const event of events) {
      const { text } = event;
      if (text.startsWith('{"type":"watch"') !== (path === "watch-session")) continue;
      if (text.length > space) {
        all.push({ path, events: [] });
        space = MOST;
      }
      all.at(-1)!.events.push(event);
      space -= text.length;
    }
  }
  return all;
}

export const body = (events: { text: string }[]): string => `[${events.map(({ text }) => text)}]`;
