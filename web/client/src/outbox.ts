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

  /** All events without an ack. */
  get all(): Entry[] {
    return [...this.#entries.values()];
  }

  /** Inserts or replaces the event `id`. Returns undefined if the outbox is full. */
  put(id: string, text: string): Entry | undefined {
    const key = `${this.owner}:${id}`;
    const isNew = !this.#entries.has(key);
    if (isNew && this.#entries.size >= LIMIT) return undefined;
    if (!isNew || this.#stored().length < LIMIT) this.#store.set(key, text);
    return this.#add(key, text);
  }

  /** Returns the unsent events to send now, oldest first, so that at most `window` events are in flight. */
  next(window: number): Entry[] {
    const { all } = this;
    const id = ({ key }: StoredEvent) => key.slice(-SUFFIX_LENGTH);
    const unsent = all.filter(({ ref }) => !ref).sort((a, b) => (id(a) < id(b) ? -1 : 1));
    return unsent.slice(0, Math.max(0, window - (all.length - unsent.length)));
  }

  /** Assigns the next `ref` and returns the message to send. */
  message(entry: Entry): string {
    entry.ref = ++this.#lastRef;
    return `{"ref":${entry.ref},${entry.text.slice(1)}`;
  }

  /** Removes all events up to this `ref`: the hub has committed them. */
  ack(upTo: number): void {
    for (const entry of this.all) if (entry.ref && entry.ref <= upTo) this.remove(entry);
  }

  /** Handles a rejected event: marks it as unsent, or removes it. */
  reject(ref: number, retry: boolean): void {
    const entry = this.all.find((entry) => entry.ref === ref);
    if (!entry) return;
    if (retry) entry.ref = 0;
    else this.remove(entry);
  }

  /** Marks all events as unsent, after the socket closed. */
  reset(): void {
    this.#lastRef = 0;
    for (const entry of this.all) entry.ref = 0;
  }

  /** Removes an event, unless a later state has replaced it. */
  remove({ key, text }: StoredEvent): void {
    if (this.#entries.get(key)?.text === text) this.#entries.delete(key);
    if (this.#store.get(key) === text) this.#store.remove(key);
  }

  /**
   * Recovers the events of owners whose tabs are gone. Adds those of this visitor in this room, which the socket can
   * send. Returns the others.
   */
  recover(owners: ReadonlySet<string | undefined>, room: string, visitor: string): StoredEvent[] {
    const others: StoredEvent[] = [];
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
      if (event.room === room && event.visitor === visitor) this.#add(key, text);
      else others.push({ key, text });
    }
    return others;
  }

  #add(key: string, text: string): Entry {
    const entry = { key, text, ref: 0 };
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
  state?: string;
}

function parse(text: string | null | undefined): EventFields | undefined {
  try {
    return JSON.parse(text ?? "") as EventFields;
  } catch {
    return undefined;
  }
}
