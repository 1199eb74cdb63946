/**
 * Events without an ack, in memory and in the store. The store keeps them for the next page.
 *
 * Each event has its own key in the store, so tabs do not overwrite each other. A later state of a watch session
 * replaces the earlier one, because it includes it. An outbox belongs to one room handle; when the owner's tab is
 * gone, another outbox recovers its events. Two may do so: the hub deduplicates by id. Knows no socket.
 */

import type { Store } from "./store.js";

/** Maximum events in one outbox, and in the store for one hub. */
const LIMIT = 256;

/** A colon and a UUID, at the end of each key. */
const SUFFIX_LENGTH = 37;

/** An event as it is stored: its times are by the device's clock. */
export interface StoredEvent {
  type: string;
  id: string;
  room: string;
  visitor: string;
  at: number;
  startedAt?: number | undefined;
  state?: string;
}

export interface Entry {
  /** Its key in the store. */
  key: string;
  text: string;
  event: StoredEvent;
  /** Its `ref` on the current socket; 0 while it is unsent. */
  ref: number;
  /** Whether the socket can send it: it is of this room and visitor. */
  isOwn: boolean;
}

export interface Outbox {
  /** The owner's lock name. */
  readonly owner: string;
  /** By how much the device's clock is behind the hub's, in ms: the times of what is sent are corrected. */
  behind: number;
  /** Returns all events that the socket can send, oldest first. */
  own(): Entry[];
  /** Returns all events that are not in flight, oldest first. */
  unsent(): Entry[];
  /** Inserts or replaces an event, given as JSON too. Returns whether there was room for it. */
  put(text: string): boolean;
  /** Returns the messages to send now: the unsent ones of the `window` oldest events of this room. */
  next(window: number): object[];
  /** Returns the body of a post. */
  toBody(entries: Entry[]): string;
  /** Removes all events up to this `ref`: the hub has committed them. */
  ack(upTo: number): void;
  /** Handles a rejected event: marks it as unsent, or removes it. */
  reject(ref: number, retry: boolean): void;
  /** Marks all events as unsent, after the socket closed. */
  reset(): void;
  /** Removes an event, unless a later state has replaced it. */
  remove(entry: Entry): void;
  /** Recovers the events of owners whose tabs are gone. The socket can send those of this visitor in this room. */
  recover(owners: ReadonlySet<string | undefined>, room: string, visitor: string): void;
}

export function createOutbox(store: Store, hub: string, id: string): Outbox {
  const prefix = `breathing-room:event:${hub}:`;
  const owner = prefix + id;
  const entries = new Map<string, Entry>();
  let lastRef = 0;

  /** All events, oldest first. */
  const all = (): Entry[] => [...entries.values()].sort((a, b) => a.event.at - b.event.at);
  const own = (): Entry[] => all().filter(({ isOwn }) => isOwn);
  const stored = (): string[] => store.keys().filter((key) => key.startsWith(prefix));

  function toHubTime({ event }: Entry): object {
    const { at, startedAt } = event;
    return { ...event, at: at + outbox.behind, startedAt: startedAt && startedAt + outbox.behind };
  }

  function remove({ key, text }: Entry): void {
    if (entries.get(key)?.text === text) entries.delete(key);
    if (store.get(key) === text) store.remove(key);
  }

  const outbox: Outbox = {
    owner,
    behind: 0,
    own,
    unsent: () => all().filter(({ ref }) => !ref),
    put(text) {
      const event = JSON.parse(text) as StoredEvent;
      const key = `${owner}:${event.id}`;
      const isNew = !entries.has(key);
      if (isNew && own().length >= LIMIT) return false;
      if (!isNew || stored().length < LIMIT) store.set(key, text);
      entries.set(key, { key, text, event, ref: 0, isOwn: true });
      return true;
    },
    next(window) {
      const first = own().slice(0, window);
      return first.flatMap((entry) => {
        if (entry.ref) return [];
        entry.ref = ++lastRef;
        return { ref: lastRef, ...toHubTime(entry) };
      });
    },
    toBody: (entries) => JSON.stringify(entries.map(toHubTime)),
    ack(upTo) {
      for (const entry of all()) if (entry.ref && entry.ref <= upTo) remove(entry);
    },
    reject(ref, retry) {
      for (const entry of all()) {
        if (entry.ref !== ref) continue;
        if (retry) entry.ref = 0;
        else remove(entry);
      }
    },
    reset() {
      lastRef = 0;
      for (const entry of all()) entry.ref = 0;
    },
    remove,
    recover(owners, room, visitor) {
      for (const key of stored()) {
        if (entries.has(key) || owners.has(key.slice(0, -SUFFIX_LENGTH))) continue;
        try {
          const event = JSON.parse(store.get(key)!) as StoredEvent;
          // The player is gone: its watch session must not continue on this socket.
          if (event.state === "playing") {
            event.state = "paused";
            event.at++;
          }
          const text = JSON.stringify(event);
          store.set(key, text);
          const isOwn = event.room === room && event.visitor === visitor;
          entries.set(key, { key, text, event, ref: 0, isOwn });
        } catch {
          store.remove(key);
        }
      }
    },
  };
  return outbox;
}
