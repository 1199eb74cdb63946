/** A place in a room: brings together the connection, the outbox, the watch sessions and the page. */

import { showAlive, whoIsAlive } from "./alive.js";
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
import { body, posts } from "./handover.js";
import { randomHex, uuid } from "./id.js";
import { type Kept, Outbox } from "./outbox.js";
import { browserStore } from "./store.js";
import { renewIn } from "./token.js";
import { isVisitor, keptVisitor } from "./visitor.js";
import { WatchSession } from "./watch.js";
import type { FromHub, Refusal } from "./wire.js";

const PROTOCOL = "breathing-room.v1";

/** The hub takes messages of 4,096 bytes; what is missing is for the `ref`. */
const MOST_BYTES = 4_070;

/** So many events that waited are on their way at once, so that the hub does not find us too fast. */
const BURST = 8;

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
  /** The newest one. */
  #token: string | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  #connection: Connection;
  #outbox: Outbox;
  /** Of other rooms or visitors, which is not this socket's to say. */
  #leftovers: Kept[] = [];
  #playing = new Set<WatchSession>();
  /** Whether the hub must be told the mood. */
  #moodUntold: boolean;
  /** The hub has too much to do: until this timer is over, events stay in the outbox. */
  #hold: ReturnType<typeof setTimeout> | undefined;
  #holds = 0;
  #die: () => void;
  #page = new AbortController();

  constructor({ hub = "/", room, visitor, mood = null, token }: JoinOptions) {
    super();
    if (!/^[a-z\d][a-z\d-]{0,63}$/.test(room)) throw new TypeError(`bad room: ${room}`);
    if (visitor !== undefined && !isVisitor(visitor)) throw new TypeError(`bad visitor: ${visitor}`);
    this.room = room;
    this.visitor = visitor ?? keptVisitor();
    this.mood = mood;
    this.#moodUntold = mood !== null;
    this.#getToken = token;
    this.#hub = new URL(hub.replace(/\/*$/, "/").replace(/^ws/, "http"), location.href).href;
    this.#outbox = new Outbox(browserStore, this.#hub, randomHex(8));
    this.#die = showAlive(this.#outbox.owner);
    this.#connection = new Connection({
      prepare: () => this.#prepare(),
      changed: (state) => this.#changed(state),
      received: (message) => this.#received(message),
      failed: (reason) => this.#fail("connect", String(reason)),
    });
    this.#followPage();
    this.#connection.connect();
  }

  setMood(mood: string | null): void {
    if (mood !== null && this.vocabulary.length && !this.vocabulary.includes(mood)) {
      return this.#fail("unknown-mood", mood);
    }
    this.mood = mood;
    this.#moodUntold = true;
    this.#tellMood();
    this.#emit("presence");
  }

  pageView(path = location.pathname, { title, referrer, props }: PageViewOptions = {}): void {
    this.#record("page-view", uuid(), { path, at: Date.now(), title, referrer, props });
  }

  watch(content: string, options: WatchOptions = {}): Watch {
    return new WatchSession(content, options, {
      tell: (id, fields) => this.#record("watch", id, fields),
      playing: this.#playing,
    });
  }

  leave(): void {
    for (const watch of this.#playing) watch.pause();
    this.#page.abort();
    this.#connection.close();
    this.#die();
  }

  // Coming and going

  async #prepare(): Promise<[url: URL, protocols: string[]]> {
    const token = await this.#newToken();
    const alive = await whoIsAlive();
    this.#leftovers = wantsPrivacy() ? [] : this.#outbox.adopt(alive, this.room, this.visitor);
    const url = new URL(`rooms/${this.room}/socket`, this.#hub.replace(/^http/, "ws"));
    // Proxies log addresses, so none holds the visitor's id or mood: the mood is sent after the welcome.
    return [url, [PROTOCOL, `visitor.${this.visitor}`, ...(token ? [`bearer.${token}`] : [])]];
  }

  /** Gets a token, and a new one before it ends: a hub that waited in vain would close for good. */
  async #newToken(): Promise<string | undefined> {
    const get = this.#getToken;
    const token = (this.#token = typeof get === "function" ? await get() : get);
    clearTimeout(this.#renewal);
    // A text is all there is; a function may have nothing to give.
    if (token && token !== get) {
      this.#renewal = setTimeout(() => {
        if (this.state === "open") {
          this.#newToken()
            .then((token) => this.#say({ type: "token", token }))
            // Where there is none, coming back is tried again and again.
            .catch(() => this.#connection.lose());
        }
      }, renewIn(token));
    }
    return token;
  }

  #changed(state: RoomState): void {
    const before = this.state;
    this.state = state;
    if (state === "open") {
      for (const watch of this.#playing) watch.retell();
      this.#send();
      void this.#post([...this.#leftovers, ...this.#outbox.next(Infinity)]);
    } else {
      // What was true a moment ago may not be true now.
      this.present = 0;
      this.moods = {};
      this.#outbox.lost();
      clearTimeout(this.#hold);
      this.#hold = undefined;
      if (this.mood !== null) this.#moodUntold = true;
    }
    this.#emit("state");
    if (before === "open" || state === "open") this.#emit("presence");
  }

  #followPage(): void {
    const on = <K extends keyof WindowEventMap>(type: K, listener: (event: WindowEventMap[K]) => void) =>
      addEventListener(type, listener, { signal: this.#page.signal });
    on("online", () => this.#connection.connect());
    on("offline", () => this.#connection.lose());
    on("pagehide", ({ persisted }) => this.#hide(persisted));
    on("pageshow", ({ persisted }) => persisted && this.#show());
  }

  #hide(mayComeBack: boolean): void {
    for (const watch of [...this.#playing]) watch.suspend();
    for (const { path, events } of posts(this.#outbox.all))
      navigator.sendBeacon(this.#hub + path, body(events));
    // An open socket or a lock would keep the page out of the back/forward cache. Where the page goes for
    // good, the browser closes both.
    if (!mayComeBack) return;
    this.#die();
    this.#connection.lose();
  }

  #show(): void {
    this.#die = showAlive(this.#outbox.owner);
    for (const watch of [...this.#playing]) watch.resume();
    this.#connection.connect();
  }

  // What is said

  #received(message: FromHub): void {
    if (message.type === "ack") {
      this.#outbox.acked(message.upTo);
      this.#holds = 0;
      this.#send();
    } else if (message.type === "error") {
      this.#refused(message);
    } else {
      ({ present: this.present, moods: this.moods } = message);
      if (message.type === "presence") return this.#emit("presence");
      ({ visitor: this.visitor, vocabulary: this.vocabulary } = message);
    }
  }

  #refused({ code, message, ref }: Refusal): void {
    const again = code === "overloaded" || code === "too-fast";
    if (ref) this.#outbox.refused(ref, again);
    if (!again) {
      this.#fail(code, message);
      return this.#send();
    }
    if (!ref) this.#moodUntold = true;
    this.#hold ??= setTimeout(
      () => {
        this.#hold = undefined;
        this.#send();
      },
      1_000 + delay(0, this.#holds++)!,
    );
  }

  get #mayTell(): boolean {
    return this.state === "open" && !this.#hold;
  }

  /** Sends what waits, as far as it may. */
  #send(): void {
    if (!this.#mayTell) return;
    this.#tellMood();
    for (const entry of this.#outbox.next(BURST)) this.#connection.send(this.#outbox.message(entry));
  }

  #say(message: object): void {
    this.#connection.send(JSON.stringify(message));
  }

  #tellMood(): void {
    if (!this.#mayTell || !this.#moodUntold) return;
    this.#moodUntold = false;
    if (this.mood === null || this.vocabulary.includes(this.mood)) {
      this.#say({ type: "mood", mood: this.mood });
    } else {
      this.#fail("unknown-mood", this.mood);
      this.mood = null;
    }
  }

  #record(type: "page-view" | "watch", id: string, fields: object): void {
    if (wantsPrivacy()) return;
    // The type stands first: by it the outbox's texts are sorted when they are posted.
    const text = JSON.stringify({ type, id, room: this.room, visitor: this.visitor, ...fields });
    if (new TextEncoder().encode(text).length > MOST_BYTES) return this.#fail("too-large", type);
    const entry = this.#outbox.put(id, text);
    if (!entry) return this.#fail("outbox-full", type);
    if (this.#mayTell) this.#connection.send(this.#outbox.message(entry));
  }

  /** For what the socket cannot say, or not at once without being too fast. */
  async #post(all: Kept[]): Promise<void> {
    for (const { path, events } of posts(all)) {
      const address = `${this.#hub}${path}?durable=true`;
      const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
      const answer = await fetch(address, { method: "POST", headers, body: body(events) }).catch(() => {});
      if (answer?.ok) for (const event of events) this.#outbox.forget(event);
    }
  }

  #fail(code: string, message: string): void {
    this.dispatchEvent(new CustomEvent("error", { detail: { code, message } }));
  }

  #emit(type: Exclude<keyof RoomEvents, "error">): void {
    this.dispatchEvent(new Event(type));
  }
}

/** Do Not Track or Global Privacy Control: to be present is what the visitor came for, to be counted is not. */
function wantsPrivacy(): boolean {
  return (
    navigator.doNotTrack === "1" ||
    !!(navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl
  );
}
