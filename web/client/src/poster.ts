/** Brings events to the hub by HTTP: those that the socket cannot send, and the last ones of a page. */

import type { RoomError } from "./api.js";
import type { Connection } from "./connection.js";
import type { Entry, Outbox } from "./outbox.js";
import { bearer, refusalOf } from "./refusal.js";
import { createTimer } from "./timer.js";
import type { TokenSource } from "./token.js";

/** Posts that failed are made again after this time (ms), or when the hub says. */
const AGAIN = 30_000;

/** Groups events by kind, room and visitor: the hub refuses a body whole, and a token may be for one room. */
export function toBatches(entries: Entry[]): Entry[][] {
  const batches: Record<string, Entry[]> = {};
  for (const entry of entries) {
    const { type, room, visitor } = entry.event;
    (batches[`${type} ${room} ${visitor}`] ??= []).push(entry);
  }
  return Object.values(batches);
}

export interface Poster {
  /** Posts all unsent events. Those that the hub cannot take now are posted again later. */
  post(): Promise<void>;
  /** Sends all events of this room without an ack as the page closes. */
  beacon(): void;
}

export function createPoster(
  outbox: Outbox,
  connection: Connection,
  token: TokenSource,
  onError: (error: RoomError) => void,
): Poster {
  const timer = createTimer();
  let isPosting = false;

  const urlOf = ([first]: Entry[]): string =>
    connection.address() + (first!.event.type === "watch" ? "watch-session" : "page-view");

  async function postBatch(batch: Entry[]): Promise<void> {
    const response = await fetch(`${urlOf(batch)}?durable=true`, {
      method: "POST",
      headers: bearer(token.current),
      body: outbox.toBody(batch),
    }).catch(() => {});
    if (response?.ok) return batch.forEach(outbox.remove);
    const refusal = response && (await refusalOf(response));
    const status = response?.status;
    if (status === 400 || status === 413) {
      // The hub refuses an array whole, because of one event or because of its size.
      const middle = batch.length >> 1;
      if (middle) {
        await postBatch(batch.slice(0, middle));
        await postBatch(batch.slice(middle));
      } else {
        outbox.remove(batch[0]!);
        onError(refusal!.error);
      }
    } else if (refusal?.wait !== Infinity) timer.set(refusal?.wait || AGAIN, post);
  }

  async function post(): Promise<void> {
    if (isPosting) return;
    isPosting = true;
    for (const batch of toBatches(outbox.unsent())) await postBatch(batch);
    isPosting = false;
  }

  return {
    post,
    beacon() {
      for (const batch of toBatches(outbox.own())) {
        navigator.sendBeacon(urlOf(batch), outbox.toBody(batch));
      }
    },
  };
}
