/** The public API, as types only. */

/** A flat object of the app's own properties of an event; at most 1,024 bytes of JSON. */
export type Props = Record<string, string | number | boolean>;

/** The connection state of a room. The counts are the hub's newest only while it is "open". */
export type RoomState =
  /** Connecting, or waiting for the welcome. */
  | "connecting"
  /** Joined; `present` and `moods` are the hub's newest. */
  | "open"
  /**
   * Joined, but it is not known whether the path to the hub works: the client waits for an answer. `present` and `moods`
   * are the last known, `countsAge` ms old. Show them dimmed.
   */
  | "checking"
  /** Not connected: the next attempt is scheduled, or is made when the page, hidden for long, is visible again. */
  | "waiting"
  /** After `leave()`, for good; or when the hub refuses this visitor, until `setToken` or the token function gives a new token. */
  | "closed";

/** A JWT, or a function that returns one; null or "" connect without a token. */
export type TokenOption = string | (() => string | null | undefined | Promise<string | null | undefined>);

export interface JoinOptions {
  /**
   * The hub's address with its scheme, such as `https://hub.example.org`, or a path of the page's origin. Default: the
   * page's origin. Of a list, the client tries the next address after a failed attempt, and stays with one that works.
   */
  hub?: string | readonly [string, ...string[]] | undefined;
  /** The room: lower case letters, digits and `-`, at most 64 characters. */
  room: string;
  /** The visitor id: letters, digits, `-` and `_`, at most 64. Default: a random id stored in the browser. */
  visitor?: string | undefined;
  /** The initial mood, unless the visitor has a mood in this room already. */
  mood?: string | null | undefined;
  /**
   * For hubs that require one. A function is called at each connect, before its token ends, and after the hub has
   * refused its token.
   */
  token?: TokenOption | undefined;
  /**
   * A page that has been hidden for this time (ms), without anything playing, leaves the room, and comes back when it is
   * visible. A sit goes on. Default: 30 minutes. `Infinity`: never.
   */
  idleAfter?: number | undefined;
}

export interface PageViewOptions {
  title?: string | undefined;
  /** Default: `document.referrer`, for the first page view of a document. */
  referrer?: string | undefined;
  /** The first page view of a document also gets the `utm_…` parameters of its address. */
  props?: Props | undefined;
}

export interface WatchOptions {
  /** Length of the content. Default: the length of the attached media element. */
  durationMs?: number | undefined;
  props?: Props | undefined;
}

export interface SitOptions {
  /** Length of the sit. The hub may cut it (`SIT_LIMIT`). */
  minutes: number;
}

/** An error of the hub or of the library. */
export interface RoomError {
  /**
   * One of the hub's error codes, over the socket or HTTP, or the reason with which it closed the socket:
   * `token-expired`, `rate-limit`. Or one of the library's: `too-large`, `outbox-full`, `unknown-mood`, `sit-refused`,
   * `connect`, `token` (the token function failed).
   */
  code: string;
  /** For people: the field and rule, event, mood or reason. */
  message: string;
  /** The HTTP status, if the hub refused the socket: the state is "closed" after 401 and 403 of each address. */
  status?: number | undefined;
}

export interface RoomEvents {
  /** `present`, `moods` or `mood` changed. */
  presence: Event;
  /** `state` changed. */
  state: Event;
  /** `currentSit` changed. */
  sit: Event;
  /** Something was rejected and is not sent again, or a connection attempt was refused. */
  error: CustomEvent<RoomError>;
}

/** A joined room. Events announce changes; the fields have the current values. */
export interface Room extends EventTarget {
  readonly room: string;
  readonly visitor: string;
  readonly state: RoomState;
  /** Distinct visitors in the room, this one included; 0 unless the state is "open" or "checking". */
  readonly present: number;
  /** Visitors by mood, without zeros; empty unless the state is "open" or "checking". */
  readonly moods: Readonly<Record<string, number>>;
  /** Milliseconds since the hub's last sign of life; 0 before the first. */
  readonly countsAge: number;
  /** The moods the hub accepts, in display order. */
  readonly vocabulary: readonly string[];
  /** This visitor's mood, also when another tab has set it. */
  readonly mood: string | null;
  /** The running sit, also one that began before a reload or on another device; null without one. */
  readonly currentSit: Sit | null;

  /** The hub's clock, in ms since the Unix epoch; this device's before the first welcome. Jumps only after a sleep or a lost connection. */
  hubNow(): number;
  setMood(mood: string | null): void;
  /** Begins a sit: this visitor stays present until its end, even if the phone locks. Replaces a running one. */
  sit(options: SitOptions): Sit;
  /** Records a page view. Default path: the current page's. Texts over the hub's limits are cut. */
  pageView(path?: string, options?: PageViewOptions): void;
  /** Creates a watch session, which starts with its first `play`. */
  watch(content: string, options?: WatchOptions): Watch;
  /** Replaces the token, or the token function, and connects again if the hub had refused the last one. */
  setToken(token: TokenOption | undefined): void;
  /** Leaves at once and for good, and ends the sit; the state stays "closed". */
  leave(): void;

  addEventListener<K extends keyof RoomEvents>(
    type: K,
    listener: (event: RoomEvents[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(...all: Parameters<EventTarget["addEventListener"]>): void;
  removeEventListener<K extends keyof RoomEvents>(
    type: K,
    listener: (event: RoomEvents[K]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(...all: Parameters<EventTarget["removeEventListener"]>): void;
}

/** Why a sit ended: it was over; `end()`, another tab or device, or a new sit ended it; or the hub refused it. */
export type SitEnd = "completed" | "ended" | "refused";

export interface SitEvents {
  /** `until` or `confirmed` changed: the hub confirmed or cut the sit, or another tab or device changed it. */
  change: Event;
  /** The sit ended. */
  end: CustomEvent<{ reason: SitEnd }>;
}

/** A sit of this visitor in this room. */
export interface Sit extends EventTarget {
  /** Its end by the hub's clock, in ms since the Unix epoch. */
  readonly until: number;
  /** Whether the hub knows the sit, and holds this visitor until its end. False before its answer, such as offline. */
  readonly confirmed: boolean;
  /** Milliseconds until its end; 0 after it. */
  readonly remaining: number;
  /** Ends it now. */
  end(): void;

  addEventListener<K extends keyof SitEvents>(
    type: K,
    listener: (event: SitEvents[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(...all: Parameters<EventTarget["addEventListener"]>): void;
  removeEventListener<K extends keyof SitEvents>(
    type: K,
    listener: (event: SitEvents[K]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(...all: Parameters<EventTarget["removeEventListener"]>): void;
}

/** A watch session. Time counts while the content plays, in hidden tabs too. */
export interface Watch {
  /** Time played so far, measured with the monotonic clock. */
  readonly watchedMs: number;
  /** Starts or resumes. After `end`, a new watch session begins. */
  play(positionMs?: number): void;
  pause(positionMs?: number): void;
  seek(positionMs: number): void;
  end(): void;
  /** Follows an `<audio>` or `<video>` until the returned function is called. */
  attach(media: HTMLMediaElement): () => void;
}
