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

/** Events of one kind, room and visitor share a body: the hub rejects a body whole, and a token may be for one room. */
export function toBatches<E extends { text: string }>(events: E[]): Batch<E>[] {
  const batches: Batch<E>[] = [];
  const open = new Map<string, { batch: Batch<E>; space: number }>();
  for (const event of events) {
    const { length } = event.text;
    const { type, room, visitor } = JSON.parse(event.text) as Record<string, string>;
    const path = type === "watch" ? "watch-session" : "page-view";
    const key = `${path} ${room} ${visitor}`;
    let current = open.get(key);
    if (!current || length > current.space) {
      current = { batch: { path, events: [] }, space: MAX_CHARS };
      open.set(key, current);
      batches.push(current.batch);
    }
    current.batch.events.push(event);
    current.space -= length;
  }
  return batches;
}

export const toBody = (events: { text: string }[]): string => `[${events.map(({ text }) => text)}]`;
