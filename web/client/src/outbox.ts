/**
 * Events without an ack, in memory and in the store. The store keeps them for the next page.
 *
 * Each event has its own key in the store, so tabs do not overwrite each other. A later state of a watch session
 * replaces the earlier one, because it includes it. An outbox belongs to one room handle; when the owner's tab is
 * gone, another outbox recovers its events. Two may do so: the hub deduplicates by id. Knows no socket and no clock.
 */

import type { Store } from "./store.js";

/** Maximum events in one outbox, and in the store for one hub. */
const LIMIT = 256;

/** A colon and a UUID, at the end of each key. */
const SUFFIX_LENGTH = 37;

/** An event with its key in the store. */
export interface StoredEvent {
  key: string;
  text: string;
}

interface Entry extends StoredEvent {
  /** Its `ref` on the current socket; 0 while it is unsent. */
  ref: number;
  /** Whether the socket can send it: it is of this room and visitor. */
  isOwn: boolean;
}

export class Outbox {
  #entries = new Map<string, Entry>();
  #lastRef = 0;
  #store: Store;
  #prefix: string;

  /** The owner's lock name. */
  readonly owner: string;

  constructor(store: Store, hub: string, owner: string) {
    this.#store = store;
    this.#prefix = `breathing-room:event:${hub}:`;
    this.owner = this.#prefix + owner;
  }

  /** All events without an ack that the socket can send. */
  get own(): Entry[] {
    return this.#all.filter(({ isOwn }) => isOwn);
  }

  /** All events that are not in flight, oldest first. */
  get unsent(): Entry[] {
    const id = ({ key }: StoredEvent) => key.slice(-SUFFIX_LENGTH);
    return this.#all.filter(({ ref }) => !ref).sort((a, b) => (id(a) < id(b) ? -1 : 1));
  }

  get #all(): Entry[] {
    return [...this.#entries.values()];
  }

  /** Inserts or replaces the event `id`. Returns undefined if the outbox is full. */
  put(id: string, text: string): Entry | undefined {
    const key = `${this.owner}:${id}`;
    const isNew = !this.#entries.has(key);
    if (isNew && this.own.length >= LIMIT) return undefined;
    if (!isNew || this.#stored().length < LIMIT) this.#store.set(key, text);
    return this.#add(key, text);
  }

  /** Returns the unsent events to send now, oldest first, so that at most `window` events are in flight. */
  next(window: number): Entry[] {
    const inFlight = this.#all.filter(({ ref }) => ref).length;
    return this.unsent.filter(({ isOwn }) => isOwn).slice(0, Math.max(0, window - inFlight));
  }

  /** Assigns the next `ref` and returns the message to send. */
  message(entry: Entry): string {
    entry.ref = ++this.#lastRef;
    return `{"ref":${entry.ref},${entry.text.slice(1)}`;
  }

  /** Removes all events up to this `ref`: the hub has committed them. */
  ack(upTo: number): void {
    for (const entry of this.#all) if (entry.ref && entry.ref <= upTo) this.remove(entry);
  }

  /** Handles a rejected event: marks it as unsent, or removes it. */
  reject(ref: number, retry: boolean): void {
    const entry = this.#all.find((entry) => entry.ref === ref);
    if (!entry) return;
    if (retry) entry.ref = 0;
    else this.remove(entry);
  }

  /** Marks all events as unsent, after the socket closed. */
  reset(): void {
    this.#lastRef = 0;
    for (const entry of this.#all) entry.ref = 0;
  }

  /** Removes an event, unless a later state has replaced it. */
  remove({ key, text }: StoredEvent): void {
    if (this.#entries.get(key)?.text === text) this.#entries.delete(key);
    if (this.#store.get(key) === text) this.#store.remove(key);
  }

  /** Corrects the times of events that were recorded by the device's clock, which is wrong by `wrongBy` ms. */
  correct(wrongBy: number): void {
    for (const entry of this.#all) {
      const event = parse(entry.text);
      if (!event?.clock) continue;
      delete event.clock;
      event.at = Math.round(event.at + wrongBy);
      if (event.startedAt) event.startedAt = Math.round(event.startedAt + wrongBy);
      entry.text = JSON.stringify(event);
      if (this.#store.get(entry.key)) this.#store.set(entry.key, entry.text);
    }
  }

  /** Recovers the events of owners whose tabs are gone. The socket can send those of this visitor in this room. */
  recover(owners: ReadonlySet<string | undefined>, room: string, visitor: string): void {
    for (const key of this.#stored()) {
      if (this.#entries.has(key) || owners.has(key.slice(0, -SUFFIX_LENGTH))) continue;
      const event = parse(this.#store.get(key));
      if (!event) {
        this.#store.remove(key);
        continue;
      }
      // The player is gone: its watch session must not continue on this socket.
      if (event.state === "playing") Object.assign(event, { state: "paused", at: event.at + 1 });
      const text = JSON.stringify(event);
      this.#store.set(key, text);
      this.#add(key, text, event.room === room && event.visitor === visitor);
    }
  }

  #add(key: string, text: string, isOwn = true): Entry {
    const entry = { key, text, ref: 0, isOwn };
    this.#entries.set(key, entry);
    return entry;
  }

  #stored(): string[] {
    return this.#store.keys().filter((key) => key.startsWith(this.#prefix));
  }
}

interface EventFields {
  room: string;
  visitor: string;
  at: number;
  startedAt?: number;
  state?: string;
  /** "device" if the times are by the device's clock, because the hub's was not known. */
  clock?: "device";
}

function parse(text: string | null | undefined): EventFields | undefined {
  try {
    return JSON.parse(text ?? "") as EventFields;
  } catch {
    return undefined;
  }
}
