/** The room handle: connects the socket, the mood, the sit, the events and the page's lifecycle. */

import type { JoinOptions, Props, Room, RoomError, RoomState, SitEnd } from "./api.js";
import { delay } from "./backoff.js";
import { createConnection, LEFT, LOST, PAGE_LEFT } from "./connection.js";
import { emit, eventTarget } from "./events.js";
import { createClock } from "./hub-clock.js";
import { randomHex, uuid } from "./id.js";
import { landing } from "./landing.js";
import type { ErrorMessage, HubMessage, Welcome } from "./messages.js";
import { createOutbox } from "./outbox.js";
import { liveOwners, lockOwner } from "./owner-lock.js";
import { createPoster } from "./poster.js";
import { createSit, type SitHandle } from "./sit.js";
import { browserStore } from "./store.js";
import { byteLength, MAX_TEXT, toJson } from "./text.js";
import { createTimer } from "./timer.js";
import { createToken } from "./token.js";
import { isVisitor, storedVisitor } from "./visitor.js";
import { createWatch, type WatchSession } from "./watch.js";

const IDLE_AFTER = 30 * 60_000; // ms

/** Maximum events in flight while a backlog is sent, to stay below the hub's rate limit. */
const WINDOW = 8;

/** What of the room changes. */
interface Fields {
  visitor: string;
  state: RoomState;
  present: number;
  moods: Record<string, number>;
  vocabulary: string[];
  mood: string | null;
  currentSit: SitHandle | null;
}

/** An event without what all events have. */
interface EventFields {
  props?: Props | undefined;
  [field: string]: unknown;
}

type Members = Fields & Omit<Room, keyof EventTarget>;

/** Joins a room and reconnects automatically until `leave()`. Throws a TypeError for a bad room or visitor. */
export function joinRoom(options: JoinOptions): Room {
  const { room, hub = "/", mood = null, idleAfter = IDLE_AFTER } = options;
  if (!/^[a-z\d][a-z\d-]{0,63}$/.test(room)) throw new TypeError(`bad room: ${room}`);
  const visitor = options.visitor ?? storedVisitor();
  if (!isVisitor(visitor)) throw new TypeError(`bad visitor: ${visitor}`);
  const addresses = [hub].flat().map(toAddress);

  /** Whether the hub counts this session: the state is "open" or "checking". */
  let isJoined = false;
  /** The mood must be sent. */
  let moodPending = mood !== null;
  /** The mood was given to `joinRoom`, and does not replace the one that the visitor has. */
  let moodIsInitial = true;
  /** Moods that were sent and that the hub has not confirmed. An older hub confirms none. */
  let moodsSent: (string | null)[] = [];
  /** The hub does not know yet that the sit began, or that it ended. */
  let sitPending = false;
  /** Number of messages about the sit that the hub has not answered. */
  let sitsSent = 0;
  /** After `overloaded` or `too-fast`, nothing is sent until it fires. */
  const pause = createTimer();
  let pauses = 0;
  const idleTimer = createTimer();
  /** The room was left because the page was hidden for long. */
  let isIdle = false;
  const page = new AbortController();
  const playing = new Set<WatchSession>();
  /** Sessions that play again when the page is back. */
  let suspended: WatchSession[] = [];

  const clock = createClock();
  const token = createToken(options.token, clock.now, (reason) => fail("token", String(reason)));
  // Proxies log URLs, so the URL has no visitor and no mood. The mood is sent after the welcome.
  const path = `rooms/${room}/socket?features=own-mood,own-sit,keepalive`;
  const connection = createConnection(addresses, path, clock, token, { prepare, onState, onMessage, onError });
  const outbox = createOutbox(browserStore, addresses[0]!, randomHex());
  const poster = createPoster(outbox, connection, token, onError);
  let unlock = lockOwner(outbox.owner);

  const fields: Fields = {
    visitor,
    state: "connecting",
    present: 0,
    moods: {},
    vocabulary: [],
    mood,
    currentSit: null,
  };
  const self = eventTarget({
    ...fields,
    room,
    get countsAge() {
      return connection.age();
    },
    hubNow: clock.now,
    setMood(mood) {
      if (mood !== null && self.vocabulary.length && !self.vocabulary.includes(mood)) return fail("unknown-mood", mood);
      self.mood = mood;
      moodPending = true;
      moodIsInitial = false;
      sendPending();
      emit(self, "presence");
    },
    sit({ minutes }) {
      if (!(minutes > 0)) throw new TypeError(`bad minutes: ${minutes}`);
      const before = self.currentSit;
      const sit = follow(clock.now() + minutes * 60_000, false);
      before?.end();
      sitPending = true;
      sendPending();
      return sit;
    },
    pageView(path = location.pathname, { title, referrer, props } = {}) {
      record("page-view", uuid(), { path, at: Date.now(), title, ...landing(referrer, props) });
    },
    watch: (content, options = {}) =>
      createWatch(content, options, {
        report: (id, fields) => record("watch", id, fields),
        playing,
      }),
    setToken(next) {
      token.option = next;
      if (!isIdle && !page.signal.aborted) connection.renew();
    },
    leave() {
      for (const watch of playing) watch.pause();
      page.abort();
      idleTimer.clear();
      self.currentSit?.end();
      connection.leave("closed", LEFT);
      unlock();
    },
  } satisfies Members) as unknown as Fields & Room;

  followPage();
  wake();
  return self;

  // Connection and page lifecycle

  async function prepare(): Promise<string> {
    if (!wantsPrivacy()) outbox.recover(await liveOwners(), room, self.visitor);
    return self.visitor;
  }

  function onState(state: RoomState, isNowJoined: boolean): void {
    const wasJoined = isJoined;
    isJoined = isNowJoined;
    self.state = state;
    if (!isJoined) {
      // Without a connection the last counts may be wrong.
      self.present = 0;
      self.moods = {};
      outbox.reset();
      pause.clear();
      sendAgain();
    } else if (!wasJoined) {
      for (const watch of playing) watch.report();
      sendPending();
      void poster.post();
    }
    emit(self, "state");
    if (wasJoined !== isJoined) emit(self, "presence");
  }

  function followPage(): void {
    // An AbortController has the option `signal`.
    const on = (target: EventTarget, type: string, listener: (event: PageTransitionEvent) => void): void =>
      target.addEventListener(type, listener as (event: Event) => void, page);
    on(window, "online", wake);
    on(window, "offline", () => connection.reset(LOST));
    on(window, "pagehide", ({ persisted }) => {
      suspended = [...playing];
      for (const watch of suspended) watch.pause();
      poster.beacon();
      // An open socket or a held lock keeps a page out of the back/forward cache. When the page unloads, the browser
      // closes both.
      if (!persisted) return;
      unlock();
      connection.reset(PAGE_LEFT);
    });
    on(window, "pageshow", ({ persisted }) => {
      if (!persisted) return; // the page has loaded
      unlock = lockOwner(outbox.owner);
      for (const watch of suspended) watch.resume();
      wake();
    });
    on(document, "resume", wake);
    // The system may end a frozen page, and its socket as if the visitor had left.
    on(document, "freeze", () => self.currentSit && connection.reset(LOST));
    on(document, "visibilitychange", onVisibility);
    onVisibility();
  }

  function onVisibility(): void {
    idleTimer.clear();
    if (!document.hidden) return wake();
    idleTimer.set(idleAfter, () => {
      // Something plays, or the visitor sits, here or on another device: looks again later.
      if (playing.size || self.currentSit || self.state === "closed") return onVisibility();
      isIdle = true;
      connection.leave("waiting", LEFT);
    });
  }

  /** The page or the device may have slept. */
  function wake(): void {
    if (!document.hidden) isIdle = false;
    if (!isIdle) connection.wake();
  }

  // Messages

  function onMessage(message: HubMessage): void {
    const behind = Math.round(clock.now()) - Date.now();
    // Only when the device's clock was set, so that the states of a watch session keep their order.
    if (Math.abs(behind - outbox.behind) > 1_000) outbox.behind = behind;
    switch (message.type) {
      case "ack":
        outbox.ack(message.upTo);
        pauses = 0;
        return sendPending();
      case "error":
        return onRejected(message);
      case "own-mood":
        return onOwnMood(message.mood);
      case "sit":
        return onSitAnswer(message.until);
      case "own-sit":
        return onSit(message.until);
      case "welcome":
        onWelcome(message);
    }
    if (!("present" in message)) return; // a message of a newer hub
    ({ present: self.present, moods: self.moods } = message);
    if (message.type === "presence") emit(self, "presence");
  }

  function onWelcome(welcome: Welcome): void {
    const { currentSit } = self;
    // A sit before the first welcome counts by the device's clock.
    if (!self.vocabulary.length && currentSit) currentSit.until += outbox.behind;
    ({ visitor: self.visitor, vocabulary: self.vocabulary } = welcome);
    if (welcome.mood && moodIsInitial) moodPending = false;
    if (welcome.mood !== undefined && !moodPending) self.mood = welcome.mood;
    onSit(welcome.sit ?? null);
  }

  function onOwnMood(mood: string | null): void {
    if (moodsSent[0] === mood) moodsSent.shift();
    // Else another tab has set it, before the mood that is on its way from here.
    if (moodsSent.length || moodPending) return;
    self.mood = mood;
    emit(self, "presence");
  }

  function onSitAnswer(until: number | null, reason?: SitEnd): void {
    if (sitsSent) sitsSent--;
    onSit(until, reason);
  }

  /** Follows the hub: the visitor's sit ends at `until`, or there is none. */
  function onSit(until: number | null, reason?: SitEnd): void {
    // What was set here, or is about to be, has its answer later.
    if (sitsSent || sitPending) return;
    const { currentSit } = self;
    // The timer of a sit that is over fires now.
    if (until === null) currentSit?.finish(reason ?? (currentSit.remaining < 1_000 ? "completed" : "ended"));
    else if (currentSit) currentSit.confirm(until);
    else follow(until, true);
  }

  function follow(until: number, confirmed: boolean): SitHandle {
    const sit = (self.currentSit = createSit(until, confirmed, clock.now, onSitEnd));
    emit(self, "sit");
    return sit;
  }

  function onSitEnd(sit: SitHandle, isOwn: boolean): void {
    if (sit !== self.currentSit) return;
    self.currentSit = null;
    sitPending = isOwn;
    sendPending();
    emit(self, "sit");
  }

  function onRejected({ code, message, ref }: ErrorMessage): void {
    const isRetry = code === "overloaded" || code === "too-fast";
    if (ref) outbox.reject(ref, isRetry);
    if (isRetry) {
      // It is not known which message was rejected.
      if (!ref) sendAgain();
      if (!pause.isSet()) pause.set(1_000 + delay(pauses++), sendPending);
      return;
    }
    // An older hub knows neither pings nor sits.
    const isOld = code === "unknown-type";
    if (code === "unknown-mood") {
      moodsSent = [];
      self.mood = null;
    } else if (code === "sit-refused" || (sitsSent && (isOld || (code === "bad-field" && !ref)))) {
      code = "sit-refused";
      onSitAnswer(null, "refused");
    } else if (isOld) return;
    fail(code, message);
    sendPending();
  }

  /** Notes that what the hub has not confirmed must be sent again. */
  function sendAgain(): void {
    moodPending ||= moodsSent.length > 0;
    moodsSent = [];
    sitPending ||= sitsSent > 0;
    sitsSent = 0;
  }

  /** Sends what is pending: mood, sit, and events up to the window. */
  function sendPending(): void {
    if (!isJoined || pause.isSet()) return;
    const { mood } = self;
    if (moodPending) {
      moodPending = false;
      moodsSent.push(mood);
      connection.send({ type: "mood", mood });
    }
    if (sitPending) {
      sitPending = false;
      sitsSent++;
      connection.send({ type: "sit", forMs: Math.ceil(self.currentSit?.remaining ?? 0) });
    }
    for (const message of outbox.next(WINDOW)) connection.send(message);
  }

  function record(type: "page-view" | "watch", id: string, { props, ...fields }: EventFields): void {
    if (wantsPrivacy()) return;
    if (props && byteLength(JSON.stringify(props)) > MAX_TEXT) {
      props = undefined;
      fail("too-large", "props");
    }
    if (outbox.put(toJson({ type, id, room, visitor: self.visitor, ...fields, props }))) sendPending();
    else fail("outbox-full", type);
  }

  function fail(code: string, message: string): void {
    onError({ code, message });
  }

  function onError(error: RoomError): void {
    emit(self, "error", error);
  }
}

/** Returns the hub's address with a final slash. */
function toAddress(hub: string): string {
  // Without a scheme, `hub.example.org` would be a path of the page's own origin.
  if (!/^((http|ws)s?:\/)?\//i.test(hub)) throw new TypeError(`bad hub: ${hub}`);
  return new URL(hub.replace(/\/*$/, "/").replace(/^ws/i, "http"), location.href).href;
}

/** Do Not Track or Global Privacy Control: the visitor is present, but the library records no events. */
function wantsPrivacy(): boolean | undefined {
  return navigator.doNotTrack === "1" || (navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl;
}
