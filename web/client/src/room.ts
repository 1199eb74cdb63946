/** The room handle: connects the socket, the outbox, the watch sessions and the page's lifecycle. */

import type {
  JoinOptions,
  PageViewOptions,
  Room,
  RoomEvents,
  RoomState,
  Watch,
  WatchOptions,
} from "./api.js";
import { delay } from "./backoff.js";
import { Connection } from "./connection.js";
import { toBatches, toBody } from "./http-batch.js";
import { randomHex, uuid } from "./id.js";
import type { ErrorMessage, HubMessage } from "./messages.js";
import { Outbox, type StoredEvent } from "./outbox.js";
import { liveOwners, lockOwner } from "./owner-lock.js";
import { browserStore } from "./store.js";
import { renewalDelay } from "./token.js";
import { isVisitor, storedVisitor } from "./visitor.js";
import { WatchSession } from "./watch.js";

const PROTOCOL = "breathing-room.v1";

/** Maximum size of an event. The hub's limit is 4,096 bytes per message; the rest is for the `ref`. */
const MAX_BYTES = 4_070;

/** Maximum events in flight while a backlog is sent, to stay below the hub's rate limit. */
const WINDOW = 8;

export class RoomHandle extends EventTarget implements Room {
  readonly room: string;
  visitor: string;
  state: RoomState = "connecting";
  present = 0;
  moods: Record<string, number> = {};
  vocabulary: string[] = [];
  mood: string | null;

  #hub: string;
  #getToken: JoinOptions["token"];
  /** The newest token. */
  #token: string | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  #connection: Connection;
  #outbox: Outbox;
  /** Recovered events of other rooms or visitors. They are posted, because the socket cannot send them. */
  #foreign: StoredEvent[] = [];
  #playing = new Set<WatchSession>();
  /** The mood must be sent. */
  #moodPending: boolean;
  /** Backoff timer after `overloaded` or `too-fast`. Nothing is sent until it fires. */
  #pause: ReturnType<typeof setTimeout> | undefined;
  #pauses = 0;
  #unlock: () => void;
  #page = new AbortController();

  constructor({ hub = "/", room, visitor, mood = null, token }: JoinOptions) {
    super();
    if (!/^[a-z\d][a-z\d-]{0,63}$/.test(room)) throw new TypeError(`bad room: ${room}`);
    if (visitor !== undefined && !isVisitor(visitor)) throw new TypeError(`bad visitor: ${visitor}`);
    this.room = room;
    this.visitor = visitor ?? storedVisitor();
    this.mood = mood;
    this.#moodPending = mood !== null;
    this.#getToken = token;
    this.#hub = new URL(hub.replace(/\/*$/, "/").replace(/^ws/, "http"), location.href).href;
    this.#outbox = new Outbox(browserStore, this.#hub, randomHex(8));
    this.#unlock = lockOwner(this.#outbox.owner);
    this.#connection = new Connection({
      prepare: () => this.#prepare(),
      onState: (state) => this.#onState(state),
      onMessage: (message) => this.#onMessage(message),
      onError: (reason) => this.#fail("connect", String(reason)),
    });
    this.#followPage();
    this.#connection.connect();
  }

  setMood(mood: string | null): void {
    if (mood !== null && this.vocabulary.length && !this.vocabulary.includes(mood)) {
      return this.#fail("unknown-mood", mood);
    }
    this.mood = mood;
    this.#moodPending = true;
    this.#sendMood();
    this.#emit("presence");
  }

  pageView(path = location.pathname, { title, referrer, props }: PageViewOptions = {}): void {
    // Another page of the same site is no referrer.
    const isOwn = referrer?.startsWith(`${location.origin}/`);
    this.#record("page-view", uuid(), { path, at: Date.now(), title, referrer: isOwn ? undefined : referrer, props });
  }

  watch(content: string, options: WatchOptions = {}): Watch {
    return new WatchSession(content, options, {
      report: (id, fields) => this.#record("watch", id, fields),
      playing: this.#playing,
    });
  }

  leave(): void {
    for (const watch of this.#playing) watch.pause();
    this.#page.abort();
    this.#connection.close();
    this.#unlock();
  }

  // Connection and page lifecycle

  async #prepare(): Promise<[url: URL, protocols: string[]]> {
    const token = await this.#newToken();
    const owners = await liveOwners();
    this.#foreign = wantsPrivacy() ? [] : this.#outbox.recover(owners, this.room, this.visitor);
    const url = new URL(`rooms/${this.room}/socket`, this.#hub.replace(/^http/, "ws"));
    // Proxies log URLs, so the URL has no visitor and no mood. The mood is sent after the welcome.
    return [url, [PROTOCOL, `visitor.${this.visitor}`, ...(token ? [`bearer.${token}`] : [])]];
  }

  /** Gets a token and schedules its renewal: the hub closes with 1008 if the token expires. */
  async #newToken(): Promise<string | undefined> {
    const get = this.#getToken;
    const token = (this.#token = typeof get === "function" ? await get() : get);
    clearTimeout(this.#renewal);
    // A fixed string cannot be renewed, and a function may return nothing.
    if (token && token !== get) {
      this.#renewal = setTimeout(() => {
        if (this.state === "open") {
          this.#newToken()
            .then((token) => this.#sendMessage({ type: "token", token }))
            // Reconnects with backoff until the function returns a token.
            .catch(() => this.#connection.reset());
        }
      }, renewalDelay(token));
    }
    return token;
  }

  #onState(state: RoomState): void {
    const before = this.state;
    this.state = state;
    if (state === "open") {
      for (const watch of this.#playing) watch.report();
      this.#send();
      void this.#post([...this.#foreign, ...this.#outbox.next(Infinity)]);
    } else {
      // Without a connection the last counts may be wrong.
      this.present = 0;
      this.moods = {};
      this.#outbox.reset();
      clearTimeout(this.#pause);
      this.#pause = undefined;
      if (this.mood !== null) this.#moodPending = true;
    }
    this.#emit("state");
    if (before === "open" || state === "open") this.#emit("presence");
  }

  #followPage(): void {
    const on = <K extends keyof WindowEventMap>(type: K, listener: (event: WindowEventMap[K]) => void) =>
      addEventListener(type, listener, { signal: this.#page.signal });
    on("online", () => this.#connection.connect());
    on("offline", () => this.#connection.reset());
    on("pagehide", ({ persisted }) => this.#hide(persisted));
    on("pageshow", ({ persisted }) => persisted && this.#show());
  }

  #hide(persisted: boolean): void {
    for (const watch of [...this.#playing]) watch.suspend();
    for (const { path, events } of toBatches(this.#outbox.all))
      navigator.sendBeacon(this.#hub + path, toBody(events));
    // An open socket or a held lock keeps a page out of the back/forward cache. When the page unloads, the browser
    // closes both.
    if (!persisted) return;
    this.#unlock();
    this.#connection.reset();
  }

  #show(): void {
    this.#unlock = lockOwner(this.#outbox.owner);
    for (const watch of [...this.#playing]) watch.resume();
    this.#connection.connect();
  }

  // Messages and events

  #onMessage(message: HubMessage): void {
    if (message.type === "ack") {
      this.#outbox.ack(message.upTo);
      this.#pauses = 0;
      this.#send();
    } else if (message.type === "error") {
      this.#onRejected(message);
    } else {
      ({ present: this.present, moods: this.moods } = message);
      if (message.type === "presence") return this.#emit("presence");
      ({ visitor: this.visitor, vocabulary: this.vocabulary } = message);
    }
  }

  #onRejected({ code, message, ref }: ErrorMessage): void {
    const retry = code === "overloaded" || code === "too-fast";
    if (ref) this.#outbox.reject(ref, retry);
    if (!retry) {
      this.#fail(code, message);
      return this.#send();
    }
    if (!ref) this.#moodPending = true;
    this.#pause ??= setTimeout(
      () => {
        this.#pause = undefined;
        this.#send();
      },
      1_000 + delay(0, this.#pauses++)!,
    );
  }

  get #canSend(): boolean {
    return this.state === "open" && !this.#pause;
  }

  /** Sends the pending mood, and pending events up to the window. */
  #send(): void {
    if (!this.#canSend) return;
    this.#sendMood();
    for (const entry of this.#outbox.next(WINDOW)) this.#connection.send(this.#outbox.message(entry));
  }

  #sendMessage(message: object): void {
    this.#connection.send(JSON.stringify(message));
  }

  #sendMood(): void {
    if (!this.#canSend || !this.#moodPending) return;
    this.#moodPending = false;
    if (this.mood === null || this.vocabulary.includes(this.mood)) {
      this.#sendMessage({ type: "mood", mood: this.mood });
    } else {
      this.#fail("unknown-mood", this.mood);
      this.mood = null;
    }
  }

  #record(type: "page-view" | "watch", id: string, fields: object): void {
    if (wantsPrivacy()) return;
    // `type` comes first: toBatches() reads it from the start of the text.
    const text = JSON.stringify({ type, id, room: this.room, visitor: this.visitor, ...fields });
    if (new TextEncoder().encode(text).length > MAX_BYTES) return this.#fail("too-large", type);
    const entry = this.#outbox.put(id, text);
    if (!entry) return this.#fail("outbox-full", type);
    if (this.#canSend) this.#connection.send(this.#outbox.message(entry));
  }

  /** Posts events that the socket cannot send, or not without reaching the rate limit. */
  async #post(all: StoredEvent[]): Promise<void> {
    for (const { path, events } of toBatches(all)) {
      const url = `${this.#hub}${path}?durable=true`;
      const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
      const response = await fetch(url, { method: "POST", headers, body: toBody(events) }).catch(() => {});
      if (response?.ok) for (const event of events) this.#outbox.remove(event);
    }
  }

  #fail(code: string, message: string): void {
    this.dispatchEvent(new CustomEvent("error", { detail: { code, message } }));
  }

  #emit(type: Exclude<keyof RoomEvents, "error">): void {
    this.dispatchEvent(new Event(type));
  }
}

/** Do Not Track or Global Privacy Control: the visitor is present, but the library records no events. */
function wantsPrivacy(): boolean {
  return (
    navigator.doNotTrack === "1" ||
    !!(navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl
  );
}
