/** Groups events into HTTP request bodies. Pure: knows the body limits, sends nothing. */

/**
 * Maximum characters per body. With the smallest events this is below the hub's limit of 100 events per request; with
 * the widest characters it is below the 64 KiB limit of a body or a beacon.
 */
const MAX_CHARS = 12_000;

/** Events of one kind, and the path of their endpoint. */
export interface Batch<E> {
  path: string;
  events: E[];
}

export function toBatches<E extends { text: string }>(events: E[]): Batch<E>[] {
  const batches: Batch<E>[] = [];
  for (const path of ["page-view", "watch-session"]) {
    let space = 0;
    for (const event of events) {
      const { text } = event;
      if (text.startsWith('{"type":"watch"') !== (path === "watch-session")) continue;
      if (text.length > space) {
        batches.push({ path, events: [] });
        space = MAX_CHARS;
      }
      batches.at(-1)!.events.push(event);
      space -= text.length;
    }
  }
  return batches;
}

export const toBody = (events: { text: string }[]): string => `[${events.map(({ text }) => text)}]`;
