/** The public API, as types only. */

/** A flat object of the app's own properties of an event; at most 1,024 bytes of JSON. */
export type Props = Record<string, string | number | boolean>;

/** The connection state of a room. The counts are valid only while it is "open". */
export type RoomState =
  /** Connecting, or waiting for the welcome. */
  | "connecting"
  /** Joined; `present` and `moods` are the hub's newest. */
  | "open"
  /** Connection lost; the next attempt is scheduled. */
  | "waiting"
  /** Final: after `leave()`, or when the hub rejects this visitor. */
  | "closed";

export interface JoinOptions {
  /** The hub's address, such as `https://hub.example.org`. Default: the page's origin. */
  hub?: string | undefined;
  /** The room: lower case letters, digits and `-`, at most 64 characters. */
  room: string;
  /** The visitor id: letters, digits, `-` and `_`, at most 64. Default: a random id stored in the browser. */
  visitor?: string | undefined;
  /** The initial mood. */
  mood?: string | null | undefined;
  /**
   * For hubs that require one: a JWT, or a function that returns one. The function is called at each connect and
   * before the token expires.
   */
  token?: string | (() => string | Promise<string>) | undefined;
}

export interface PageViewOptions {
  title?: string | undefined;
  referrer?: string | undefined;
  props?: Props | undefined;
}

export interface WatchOptions {
  /** Length of the content. Default: the length of the attached media element. */
  durationMs?: number | undefined;
  props?: Props | undefined;
}

/** An error of the hub or of the library. */
export interface RoomError {
  /** One of the hub's error codes, or the library's `too-large`, `outbox-full`, `unknown-mood` or `connect`. */
  code: string;
  /** For people: the field and rule, event, mood or reason. */
  message: string;
}

export interface RoomEvents {
  /** `present`, `moods` or `mood` changed. */
  presence: Event;
  /** `state` changed. */
  state: Event;
  /** Something was rejected and is not sent again. */
  error: CustomEvent<RoomError>;
}

/** A joined room. Events announce changes; the fields have the current values. */
export interface Room extends EventTarget {
  readonly room: string;
  readonly visitor: string;
  readonly state: RoomState;
  /** Distinct visitors in the room, this one included; 0 unless the state is "open". */
  readonly present: number;
  /** Visitors by mood, without zeros; empty unless the state is "open". */
  readonly moods: Readonly<Record<string, number>>;
  /** The moods the hub accepts, in display order. */
  readonly vocabulary: readonly string[];
  /** This visitor's mood, as set here. */
  readonly mood: string | null;

  setMood(mood: string | null): void;
  /** Records a page view. Default path: the current page's. */
  pageView(path?: string, options?: PageViewOptions): void;
  /** Creates a watch session, which starts with its first `play`. */
  watch(content: string, options?: WatchOptions): Watch;
  /** Leaves at once and for good; the state stays "closed". */
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
