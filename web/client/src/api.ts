/** What the library offers, as types only: the words that its users read. */

/** A flat object for whatever the app wants to keep with an event; at most 1,024 bytes of JSON. */
export type Props = Record<string, string | number | boolean>;

/** How the room is connected. Only while it is "open" the counts are true. */
export type RoomState =
  /** On the way in. */
  | "connecting"
  /** In the room; `present` and `moods` are what the hub said last. */
  | "open"
  /** The connection was lost; it will be tried again by itself. */
  | "waiting"
  /** Over: after `leave()`, or because the hub does not let this visitor in. */
  | "closed";

export interface JoinOptions {
  /** The hub's address, as in `https://hub.example.org`. Default: where the page comes from. */
  hub?: string | undefined;
  /** The room: lower case letters, digits and `-`, at most 64. */
  room: string;
  /** Who comes: letters, digits, `-` and `_`, at most 64. Default: a random id that the browser keeps. */
  visitor?: string | undefined;
  /** The mood to come in with. */
  mood?: string | null | undefined;
  /**
   * For hubs that ask for one: a JWT, or a function that gets one, which is asked at each connect and before the
   * token ends.
   */
  token?: string | (() => string | Promise<string>) | undefined;
}

export interface PageViewOptions {
  title?: string | undefined;
  referrer?: string | undefined;
  props?: Props | undefined;
}

export interface WatchOptions {
  /** Length of the content. Default: that of the attached media element. */
  durationMs?: number | undefined;
  props?: Props | undefined;
}

/** A refusal, by the hub or by the library itself. */
export interface RoomError {
  /** The hub's error codes, or of the library `too-large`, `outbox-full`, `unknown-mood` and `connect`. */
  code: string;
  /** For people: which field and rule, event, mood or reason it is about. */
  message: string;
}

export interface RoomEvents {
  /** `present`, `moods` or the own `mood` changed. */
  presence: Event;
  /** `state` changed. */
  state: Event;
  /** Something was refused and will not be sent again. */
  error: CustomEvent<RoomError>;
}

/** A place in a room. It tells by events that something changed; what it is now, read off its fields. */
export interface Room extends EventTarget {
  readonly room: string;
  readonly visitor: string;
  readonly state: RoomState;
  /** Distinct people in the room, this one included; 0 while it is not known. */
  readonly present: number;
  /** People by mood, without zeros; empty while it is not known. */
  readonly moods: Readonly<Record<string, number>>;
  /** The moods that may be set, in display order. */
  readonly vocabulary: readonly string[];
  /** The own mood, as set here. */
  readonly mood: string | null;

  setMood(mood: string | null): void;
  /** A page was seen. Default: the one that the browser shows. */
  pageView(path?: string, options?: PageViewOptions): void;
  /** A watch session of this content, which starts with its first `play`. */
  watch(content: string, options?: WatchOptions): Watch;
  /** Leaves at once. A handle that has left stays closed. */
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

/** Somebody watches or listens to something. Time counts while it plays, in hidden tabs too. */
export interface Watch {
  /** Time played so far, measured by the monotonic clock. */
  readonly watchedMs: number;
  /** It plays. After `end`, a new watch session begins. */
  play(positionMs?: number): void;
  pause(positionMs?: number): void;
  seek(positionMs: number): void;
  end(): void;
  /** Follows an `<audio>` or `<video>` until the returned function is called. */
  attach(media: HTMLMediaElement): () => void;
}
