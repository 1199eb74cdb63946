/** The room handle: connects the socket, the mood, the sit, the events and the page's lifecycle. */

import type {
  JoinOptions,
  PageViewOptions,
  Room,
  RoomError,
  RoomEvents,
  RoomState,
  Sit,
  SitEnd,
  SitOptions,
  TokenOption,
  Watch,
  WatchOptions,
} from "./api.js";
import { delay } from "./backoff.js";
import { Connection, type Target } from "./connection.js";
import { HubClock } from "./hub-clock.js";
import { uuid } from "./id.js";
import { landing } from "./landing.js";
import type { ErrorMessage, HubMessage, Welcome } from "./messages.js";
import { Recorder } from "./recorder.js";
import { SitHandle } from "./sit.js";
import { TokenSource } from "./token.js";
import { isVisitor, storedVisitor } from "./visitor.js";
import { WatchSession } from "./watch.js";

const PROTOCOL = "breathing-room.v1";

const IDLE_AFTER = 30 * 60_000; // ms

/** setTimeout's limit. */
const TIMER_LIMIT = 2 ** 31 - 1;

/** A welcome more precise than this (ms) needs no ping for the clock. */
const PRECISE = 25;

export class RoomHandle extends EventTarget implements Room {
  readonly room: string;
  visitor: string;
  state: RoomState = "connecting";
  present = 0;
  moods: Record<string, number> = {};
  vocabulary: string[] = [];
  mood: string | null;
  currentSit: SitHandle | null = null;

  #clock = new HubClock();
  #token: TokenSource;
  #connection: Connection;
  #recorder: Recorder;
  #playing = new Set<WatchSession>();
  /** The mood must be sent. */
  #moodPending: boolean;
  /** Moods that were sent and that the hub has not confirmed. */
  #moodsSent: (string | null)[] = [];
  /** Whether the hub confirms moods, and names the visitor's in its welcome. */
  #hasOwnMood = false;
  /** Whether a mood was set here, not only given to joinRoom. */
  #moodSet = false;
  /** The hub does not know yet that the sit began, or that it ended. */
  #sitPending = false;
  /** Number of messages about the sit that the hub has not answered. */
  #sitsSent = 0;
  /** Backoff timer after `overloaded` or `too-fast`. Nothing is sent until it fires. */
  #pause: ReturnType<typeof setTimeout> | undefined;
  #pauses = 0;
  #idleAfter: number;
  #idleTimer: ReturnType<typeof setTimeout> | undefined;
  /** The room was left because the page was hidden for long. */
  #isIdle = false;
  #page = new AbortController();

  constructor({ hub = "/", room, visitor, mood = null, token, idleAfter = IDLE_AFTER }: JoinOptions) {
    super();
    if (!/^[a-z\d][a-z\d-]{0,63}$/.test(room)) throw new TypeError(`bad room: ${room}`);
    if (visitor !== undefined && !isVisitor(visitor)) throw new TypeError(`bad visitor: ${visitor}`);
    const addresses = (typeof hub === "string" ? [hub] : hub).map(toAddress);
    if (!addresses[0]) throw new TypeError("bad hub: no address");
    this.room = room;
    this.visitor = visitor ?? storedVisitor();
    this.mood = mood;
    this.#moodPending = mood !== null;
    this.#idleAfter = idleAfter;
    this.#token = new TokenSource(token, (reason) => this.#fail("token", String(reason)));
    this.#connection = new Connection(addresses, {
      prepare: (address) => this.#prepare(address),
      onState: (state) => this.#onState(state),
      onMessage: (message, sentAt) => this.#onMessage(message, sentAt),
      onError: (error) => this.#onError(error),
      onLate: () => this.#wake(),
      onRefused: () => this.#token.renew(() => this.#connection.reopen()),
      canRenew: () => this.#token.isRenewable,
    });
    this.#recorder = new Recorder(addresses[0], {
      clock: this.#clock,
      address: () => this.#connection.address,
      token: () => this.#token.current,
      send: (text) => this.#connection.send(text),
      canSend: () => this.#canSend,
      onError: (error) => this.#onError(error),
    });
    this.#followPage();
    this.#connection.connect();
  }

  get countsAge(): number {
    return this.#connection.liveness.age;
  }

  hubNow(): number {
    return this.#clock.now();
  }

  setMood(mood: string | null): void {
    if (mood !== null && this.vocabulary.length && !this.vocabulary.includes(mood)) {
      return this.#fail("unknown-mood", mood);
    }
    this.mood = mood;
    this.#moodPending = this.#moodSet = true;
    this.#sendMood();
    this.#emit("presence");
  }

  sit({ minutes }: SitOptions): Sit {
    if (!(minutes > 0)) throw new TypeError(`bad minutes: ${minutes}`);
    const before = this.currentSit;
    const sit = this.#follow(this.hubNow() + minutes * 60_000);
    before?.end();
    this.#sitPending = true;
    this.#sendSit();
    return sit;
  }

  pageView(path = location.pathname, { title, referrer, props }: PageViewOptions = {}): void {
    this.#record("page-view", uuid(), {
      path,
      at: Math.round(this.hubNow()),
      title,
      ...landing(this.#connection.address + this.room, referrer, props),
    });
  }

  watch(content: string, options: WatchOptions = {}): Watch {
    return new WatchSession(content, options, {
      offset: () => this.#clock.offset,
      report: (id, fields) => this.#record("watch", id, fields),
      playing: this.#playing,
    });
  }

  setToken(token: TokenOption | undefined): void {
    if (this.#page.signal.aborted) return;
    this.#token.set(token);
    if (this.#isJoined) void this.#token.renewNow(this.#sendToken, this.#now);
    else if (this.state === "closed") this.#connection.reopen();
    else this.#connection.connect();
  }

  leave(): void {
    for (const watch of this.#playing) watch.pause();
    this.#page.abort();
    clearTimeout(this.#idleTimer);
    this.#token.stop();
    this.currentSit?.end();
    this.#connection.close();
    this.#recorder.close();
  }

  /** Implements SitOwner. */
  onSitEnd(sit: SitHandle, reason: SitEnd): void {
    if (sit !== this.currentSit) return;
    this.currentSit = null;
    // The hub ends a completed sit by itself.
    this.#sitPending = reason === "ended";
    this.#sendSit();
    this.#emit("sit");
  }

  // Connection and page lifecycle

  async #prepare(address: string): Promise<Target> {
    const token = await this.#token.get();
    if (!wantsPrivacy()) await this.#recorder.recover(this.room, this.visitor);
    const url = new URL(`rooms/${this.room}/socket?features=own-mood`, address.replace(/^http/, "ws"));
    // Proxies log URLs, so the URL has no visitor and no mood. The mood is sent after the welcome.
    const protocols = [PROTOCOL, `visitor.${this.visitor}`];
    return { url, protocols: token ? [...protocols, `bearer.${token}`] : protocols, token };
  }

  get #isJoined(): boolean {
    return this.state === "open" || this.state === "checking";
  }

  #now = (): number => this.hubNow();

  #sendToken = (token: string): void => this.#send({ type: "token", token });

  #onState(state: RoomState): void {
    const wasJoined = this.#isJoined;
    this.state = state;
    if (!this.#isJoined) {
      // Without a connection the last counts may be wrong.
      this.present = 0;
      this.moods = {};
      this.#recorder.reset();
      this.#token.stop();
      clearTimeout(this.#pause);
      this.#pause = undefined;
      this.#moodPending ||= this.#hasOwnMood ? this.#moodsSent.length > 0 : this.mood !== null;
      this.#moodsSent = [];
      this.#sitPending ||= this.#sitsSent > 0;
      this.#sitsSent = 0;
    } else if (!wasJoined) {
      this.#token.renew(this.#sendToken, this.#now);
      for (const watch of this.#playing) watch.report();
      this.#sendAll();
      this.#recorder.post();
      if (this.#clock.error > PRECISE && !document.hidden) this.#connection.liveness.ask();
    }
    this.#emit("state");
    if (wasJoined !== this.#isJoined) this.#emit("presence");
  }

  #followPage(): void {
    const { signal } = this.#page;
    const on = <K extends keyof WindowEventMap>(type: K, listener: (event: WindowEventMap[K]) => void) =>
      addEventListener(type, listener, { signal });
    on("online", () => {
      this.#wake();
      if (!this.#isIdle) this.#connection.connect();
    });
    on("offline", () => !this.#isIdle && this.#connection.reset());
    on("pagehide", ({ persisted }) => this.#hide(persisted));
    on("pageshow", ({ persisted }) => {
      if (persisted) this.#show();
      this.#wake();
    });
    document.addEventListener("resume", () => this.#wake(), { signal });
    document.addEventListener("visibilitychange", () => this.#onVisibility(), { signal });
    this.#onVisibility();
  }

  #onVisibility(): void {
    clearTimeout(this.#idleTimer);
    if (!document.hidden) return this.#wake();
    this.#connection.liveness.stop();
    if (this.#idleAfter > TIMER_LIMIT) return;
    this.#idleTimer = setTimeout(() => {
      // Something plays or a sit runs: looks again later.
      if (this.currentSit || this.#playing.size) return this.#onVisibility();
      this.#isIdle = true;
      this.#connection.pause();
    }, this.#idleAfter);
  }

  /** The page or the device may have slept. A hidden page asks nothing: it asks when it is visible. */
  #wake(): void {
    if (document.hidden) return;
    this.#isIdle = false;
    this.#clock.wake();
    this.#connection.wake();
  }

  #hide(persisted: boolean): void {
    for (const watch of [...this.#playing]) watch.suspend();
    this.#recorder.beacon();
    // An open socket or a held lock keeps a page out of the back/forward cache. When the page unloads, the browser
    // closes both.
    if (!persisted) return;
    this.#recorder.close();
    this.#connection.reset();
  }

  #show(): void {
    this.#recorder.open();
    for (const watch of [...this.#playing]) watch.resume();
    if (!this.#isIdle) this.#connection.connect();
  }

  // Messages

  #onMessage(message: HubMessage, sentAt: number | undefined): void {
    switch (message.type) {
      case "ack":
        this.#recorder.ack(message.upTo);
        this.#pauses = 0;
        return this.#sendAll();
      case "error":
        return this.#onRejected(message);
      case "pong":
        if (sentAt !== undefined) this.#clock.sample(message.serverTime, sentAt);
        return;
      case "own-mood":
        return this.#onOwnMood(message.mood);
      case "sit":
        if (this.#sitsSent > 1) this.#sitsSent--; // a later message counts
        else this.#onSit(message.until ?? undefined);
        return;
      default:
        ({ present: this.present, moods: this.moods } = message);
        if (message.type === "welcome") this.#onWelcome(message, sentAt!);
        else this.#emit("presence");
    }
  }

  #onWelcome(welcome: Welcome, sentAt: number): void {
    ({ visitor: this.visitor, vocabulary: this.vocabulary } = welcome);
    if (welcome.serverTime) {
      const wasKnown = this.#clock.isKnown;
      this.#clock.sample(welcome.serverTime, sentAt);
      const wrongBy = this.#clock.deviceIsBehind;
      this.#recorder.correct(wrongBy);
      const { currentSit } = this;
      if (!wasKnown && currentSit) currentSit.move(currentSit.until + wrongBy);
    }
    const { mood } = welcome;
    this.#hasOwnMood = mood !== undefined;
    // A mood given to joinRoom does not replace the one that the visitor has.
    if (mood && !this.#moodSet) this.#moodPending = false;
    if (mood !== undefined && !this.#moodPending) this.mood = mood;

    this.#connection.liveness.pingAfter = welcome.pingAfterMs ?? 60_000;
    if (!this.#sitPending) this.#onSit(welcome.sit);
    else if (!welcome.pingAfterMs) {
      this.#sitPending = false;
      if (this.currentSit) this.#refuseSit("this hub has no sits");
    }
  }

  #onOwnMood(mood: string | null): void {
    const sent = this.#moodsSent;
    if (sent[0] === mood) sent.shift();
    // Else another tab has set it, before this one's mood that is on its way.
    if (sent.length || this.#moodPending) return;
    this.mood = mood;
    this.#emit("presence");
  }

  /** Follows the hub: the visitor's sit ends at `until`, or there is none. */
  #onSit(until: number | undefined): void {
    this.#sitsSent = 0;
    this.#sitPending = false;
    const { currentSit } = this;
    if (until === undefined) {
      // The timer of a sit that is over fires now.
      currentSit?.finish(currentSit.remaining < 1_000 ? "completed" : "ended");
      this.#sitPending = false;
    } else if (currentSit) currentSit.move(until);
    else this.#follow(until);
  }

  #follow(until: number): SitHandle {
    const sit = (this.currentSit = new SitHandle(this, until));
    this.#emit("sit");
    return sit;
  }

  #refuseSit(message: string): void {
    this.currentSit?.finish("refused");
    this.#fail("sit-refused", message);
  }

  #onRejected({ code, message, ref }: ErrorMessage): void {
    const retry = code === "overloaded" || code === "too-fast";
    if (ref) this.#recorder.reject(ref, retry);
    if (!retry) {
      if (code === "sit-refused") {
        this.#sitsSent = 0;
        this.#sitPending = false;
        this.currentSit?.finish("refused");
      } else if (code === "unknown-mood") this.#moodsSent = [];
      this.#fail(code, message);
      return this.#sendAll();
    }
    if (!ref) {
      // It is not known which message was rejected.
      this.#moodPending ||= !this.#hasOwnMood || this.#moodsSent.length > 0;
      this.#moodsSent = [];
      this.#sitPending ||= this.#sitsSent > 0;
      this.#sitsSent = 0;
    }
    this.#pause ??= setTimeout(
      () => {
        this.#pause = undefined;
        this.#sendAll();
      },
      1_000 + delay(this.#pauses++),
    );
  }

  get #canSend(): boolean {
    return this.#isJoined && !this.#pause;
  }

  /** Sends what is pending: mood, sit, and events up to the window. */
  #sendAll(): void {
    if (!this.#canSend) return;
    this.#sendMood();
    this.#sendSit();
    this.#recorder.sendNext();
  }

  #send(message: object): void {
    this.#connection.send(JSON.stringify(message));
  }

  #sendMood(): void {
    if (!this.#canSend || !this.#moodPending) return;
    this.#moodPending = false;
    const { mood } = this;
    if (mood === null || this.vocabulary.includes(mood)) {
      this.#send({ type: "mood", mood });
      this.#moodsSent.push(mood);
    } else {
      this.#fail("unknown-mood", mood);
      this.mood = null;
    }
  }

  #sendSit(): void {
    if (!this.#canSend || !this.#sitPending) return;
    this.#sitPending = false;
    this.#sitsSent++;
    this.#send({ type: "sit", forMs: Math.ceil(this.currentSit?.remaining ?? 0) });
  }

  #record(type: "page-view" | "watch", id: string, fields: object): void {
    // Something plays in a hidden page that has left: the visitor is back.
    if (this.#isIdle && this.#playing.size) {
      this.#isIdle = false;
      this.#connection.connect();
      this.#onVisibility();
    }
    if (!wantsPrivacy()) this.#recorder.record(type, id, { room: this.room, visitor: this.visitor, ...fields });
  }

  #fail(code: string, message: string): void {
    this.#onError({ code, message });
  }

  #onError(detail: RoomError): void {
    this.dispatchEvent(new CustomEvent("error", { detail }));
  }

  #emit(type: Exclude<keyof RoomEvents, "error">): void {
    this.dispatchEvent(new Event(type));
  }
}

/** Returns the hub's address with a final slash. */
function toAddress(hub: string): string {
  // Without a scheme, `hub.example.org` would be a path of the page's own origin.
  if (!/^((https?|wss?):\/\/|\/)/i.test(hub)) throw new TypeError(`bad hub, without https:// or /: ${hub}`);
  return new URL(hub.replace(/\/*$/, "/").replace(/^ws/i, "http"), location.href).href;
}

/** Do Not Track or Global Privacy Control: the visitor is present, but the library records no events. */
function wantsPrivacy(): boolean {
  return (
    navigator.doNotTrack === "1" ||
    !!(navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl
  );
}
