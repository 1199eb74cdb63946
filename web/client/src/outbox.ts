/**
 * Events that the hub has not acked yet, in memory and, for the page after this one, in the store.
 *
 * Each event is one key of the store, so that tabs do not overwrite each other. A later state of the
 * same watch session takes the place of the earlier one, since it says all that the earlier one said.
 * An outbox belongs to one handle; when its owner is dead, the next one adopts what is left. If two do,
 * no harm is done: an event counts once however often it is sent. Knows no socket and no clock.
 */

import type { Store } from "./store.js";

/** The most events that one outbox holds, and the most that the store holds for one hub. */
const LIMIT = 256;

/** A UUID and the colon before it. */
const ID_LENGTH = 37;

/** An event as the store has it. */
export interface Kept {
  key: string;
  text: string;
}

interface Entry extends Kept {
  /** Its number on the present socket; 0 while it is unsent. */
  ref: number;
}

export class Outbox {
  #entries = new Map<string, Entry>();
  #lastRef = 0;
  #store: Store;
  #prefix: string;

  /** The name under which the owner is known to be alive. */
  readonly owner: string;

  constructor(store: Store, hub: string, owner: string) {
    this.#store = store;
    this.#prefix = `breathing-room:event:${hub}:`;
    this.owner = this.#prefix + owner;
  }

  /** All that is not acked. */
  get all(): Entry[] {
    return [...this.#entries.values()];
  }

  /** Keeps the event `id`; undefined where too many are waiting already. */
  put(id: string, text: string): Entry | undefined {
    const key = `${this.owner}:${id}`;
    const isNew = !this.#entries.has(key);
    if (isNew && this.#entries.size >= LIMIT) return undefined;
    if (!isNew || this.#stored().length < LIMIT) this.#store.set(key, text);
    return this.#add(key, text);
  }

  /** What is to be sent next, oldest first, so that at most so many events are on their way. */
  next(most: number): Entry[] {
    const { all } = this;
    const id = ({ key }: Kept) => key.slice(-ID_LENGTH);
    const unsent = all.filter(({ ref }) => !ref).sort((a, b) => (id(a) < id(b) ? -1 : 1));
    return unsent.slice(0, Math.max(0, most - (all.length - unsent.length)));
  }

  /** The message to send now, with the next `ref`. */
  message(entry: Entry): string {
    entry.ref = ++this.#lastRef;
    return `{"ref":${entry.ref},${entry.text.slice(1)}`;
  }

  /** Everything up to this `ref` is on disk. */
  acked(upTo: number): void {
    for (const entry of this.all) if (entry.ref && entry.ref <= upTo) this.forget(entry);
  }

  /** The hub did not take it: it is sent again later, or never. */
  refused(ref: number, sendAgain: boolean): void {
    const entry = this.all.find((entry) => entry.ref === ref);
    if (!entry) return;
    if (sendAgain) entry.ref = 0;
    else this.forget(entry);
  }

  /** The socket is gone: what it did not ack is to be sent on the next one. */
  lost(): void {
    this.#lastRef = 0;
    for (const entry of this.all) entry.ref = 0;
  }

  /** Drops an event, but not what has taken its place since. */
  forget({ key, text }: Kept): void {
    if (this.#entries.get(key)?.text === text) this.#entries.delete(key);
    if (this.#store.get(key) === text) this.#store.remove(key);
  }

  /**
   * Takes over what dead owners have left, if it was said by the same visitor in the same room, as the
   * socket says that by itself. Returns the others.
   */
  adopt(alive: ReadonlySet<string | undefined>, room: string, visitor: string): Kept[] {
    const others: Kept[] = [];
    for (const key of this.#stored()) {
      if (this.#entries.has(key) || alive.has(key.slice(0, -ID_LENGTH))) continue;
      const event = parse(this.#store.get(key));
      if (!event) {
        this.#store.remove(key);
        continue;
      }
      // Its player is gone: what was playing must not play on through this socket.
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

interface StoredEvent {
  room: string;
  visitor: string;
  at: number;
  state?: string;
}

function parse(text: string | null | undefined): StoredEvent | undefined {
  try {
    return JSON.parse(text ?? "") as StoredEvent;
  } catch {
    return undefined;
  }
}
