/**
 * Records the events of one room handle: puts them into the outbox, and brings them to the hub over the socket, by
 * posts or by beacons. Knows no socket and no page.
 */

import type { Props, RoomError } from "./api.js";
import type { HubClock } from "./hub-clock.js";
import { type Batch, toBatches, toBody } from "./http-batch.js";
import { randomHex } from "./id.js";
import { Outbox, type StoredEvent } from "./outbox.js";
import { liveOwners, lockOwner } from "./owner-lock.js";
import { refusalOf } from "./refusal.js";
import { browserStore } from "./store.js";
import { byteLength, MAX_PROPS, toJson } from "./text.js";

/** Maximum events in flight while a backlog is sent, to stay below the hub's rate limit. */
const WINDOW = 8;

/** Posts that failed are made again after this time (ms), or when the hub says. */
const POST_AGAIN = 30_000;

interface EventFields {
  room: string;
  visitor: string;
  props?: Props | undefined;
}

export interface RecorderHandler {
  readonly clock: HubClock;
  address(): string;
  token(): string | undefined;
  canSend(): boolean;
  send(text: string): void;
  onError(error: RoomError): void;
}

export class Recorder {
  #handler: RecorderHandler;
  #outbox: Outbox;
  #unlock: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isPosting = false;

  constructor(hub: string, handler: RecorderHandler) {
    this.#handler = handler;
    this.#outbox = new Outbox(browserStore, hub, randomHex(8));
    this.#unlock = lockOwner(this.#outbox.owner);
  }

  /** Owns its events again, after `close()`. */
  open(): void {
    this.#unlock = lockOwner(this.#outbox.owner);
  }

  /** Leaves its events to other pages. */
  close(): void {
    this.reset();
    this.#unlock();
  }

  record(type: "page-view" | "watch", id: string, fields: EventFields): void {
    if (fields.props && byteLength(JSON.stringify(fields.props)) > MAX_PROPS) {
      this.#fail("too-large", "props");
      fields = { ...fields, props: undefined };
    }
    const text = toJson({ type, id, ...fields, clock: this.#handler.clock.isKnown ? undefined : "device" });
    const entry = this.#outbox.put(id, text);
    if (!entry) return this.#fail("outbox-full", type);
    if (this.#handler.canSend()) this.#handler.send(this.#outbox.message(entry));
  }

  /** Takes over the events of pages that are gone. */
  async recover(room: string, visitor: string): Promise<void> {
    this.#outbox.recover(await liveOwners(), room, visitor);
  }

  correct(wrongBy: number): void {
    this.#outbox.correct(wrongBy);
  }

  /** Sends pending events, up to the window. */
  sendNext(): void {
    for (const entry of this.#outbox.next(WINDOW)) this.#handler.send(this.#outbox.message(entry));
  }

  ack(upTo: number): void {
    this.#outbox.ack(upTo);
  }

  reject(ref: number, retry: boolean): void {
    this.#outbox.reject(ref, retry);
  }

  /** Marks all events as unsent, after the socket closed. */
  reset(): void {
    clearTimeout(this.#timer);
    this.#outbox.reset();
  }

  /** Sends all events without an ack as the page closes. */
  beacon(): void {
    for (const { path, events } of toBatches(this.#outbox.own))
      navigator.sendBeacon(this.#handler.address() + path, toBody(events));
  }

  /** Posts events that the socket cannot send, or not without reaching the rate limit. */
  async post(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#isPosting) return;
    this.#isPosting = true;
    let wait = 0;
    for (const batch of toBatches(this.#outbox.unsent)) wait = Math.max(wait, await this.#postBatch(batch));
    this.#isPosting = false;
    if (wait && this.#handler.canSend()) this.#timer = setTimeout(() => this.post(), wait * (1 + Math.random()));
  }

  /** Returns the time (ms) after which the batch can be posted again; 0 if not on this connection. */
  async #postBatch({ path, events }: Batch<StoredEvent>): Promise<number> {
    const url = `${this.#handler.address()}${path}?durable=true`;
    const token = this.#handler.token();
    const headers: HeadersInit = token ? { authorization: `Bearer ${token}` } : {};
    const response = await fetch(url, { method: "POST", headers, body: toBody(events) }).catch(() => {});
    if (response?.ok) {
      for (const event of events) this.#outbox.remove(event);
      return 0;
    }
    const { status = 0, code = "", message = "", wait = 0 } = response ? await refusalOf(response) : {};
    if (status !== 400 && status !== 413) return status === 401 || status === 403 ? 0 : wait || POST_AGAIN;
    // The hub refuses an array whole. Its message begins with the index of the first bad event.
    const index = events.length === 1 ? 0 : Number(/^\[(\d+)\]/.exec(message)?.[1] ?? NaN);
    const bad = events[index];
    if (bad) {
      this.#outbox.remove(bad);
      this.#fail(code, message);
    }
    const half = Math.ceil(events.length / 2);
    const parts = bad ? [events.filter((event) => event !== bad)] : [events.slice(0, half), events.slice(half)];
    let longest = 0;
    for (const part of parts) if (part.length) longest = Math.max(longest, await this.#postBatch({ path, events: part }));
    return longest;
  }

  #fail(code: string, message: string): void {
    this.#handler.onError({ code, message });
  }
}
