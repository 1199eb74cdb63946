/** React bindings: a provider that joins a room, and hooks. No other file knows React. */

import {
  type JoinOptions,
  joinRoom,
  type PageViewOptions,
  type Room,
  type RoomState,
  type Sit,
  type SitOptions,
  type TokenOption,
  type Watch,
  type WatchOptions,
} from "@breathing-room/client";
import {
  createContext,
  type ReactNode,
  type RefCallback,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";

/** What a component can do in the room. The functions stay the same while the provider's room does. */
export interface RoomActions {
  setMood(mood: string | null): void;
  pageView(path?: string, options?: PageViewOptions): void;
  sit(options: SitOptions): void;
}

/** The state of the room. */
export interface RoomSnapshot {
  readonly state: RoomState;
  readonly present: number;
  readonly moods: Readonly<Record<string, number>>;
  readonly vocabulary: readonly string[];
  readonly mood: string | null;
  readonly currentSit: Sit | null;
}

export interface Presence extends RoomSnapshot, RoomActions {}

const NOT_JOINED: RoomSnapshot = {
  state: "connecting",
  present: 0,
  moods: {},
  vocabulary: [],
  mood: null,
  currentSit: null,
};

const CHANGES = ["presence", "state", "sit"];

/** A provider's room. Effects of children run before the provider's, which joins: what they do waits until then. */
class Session {
  room: Room | undefined;
  snapshot = NOT_JOINED;
  readonly actions: RoomActions = {
    setMood: (mood) => this.run((room) => room.setMood(mood)),
    pageView: (path, options) => this.run((room) => room.pageView(path, options)),
    sit: (options) => this.run((room) => void room.sit(options)),
  };
  #waiting: ((room: Room) => void)[] = [];
  #listeners = new Set<() => void>();

  /** Joins, and returns a function that leaves. */
  join(options: JoinOptions): () => void {
    const room = (this.room = joinRoom(options));
    for (const type of CHANGES) room.addEventListener(type, this.#changed);
    for (const action of this.#waiting.splice(0)) action(room);
    this.#changed();
    return () => {
      room.leave();
      for (const type of CHANGES) room.removeEventListener(type, this.#changed);
      this.room = undefined;
      this.#changed();
    };
  }

  run(action: (room: Room) => void): void {
    if (this.room) action(this.room);
    else this.#waiting.push(action);
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  #changed = (): void => {
    const { room } = this;
    if (room) {
      const { state, present, moods, vocabulary, mood, currentSit } = room;
      this.snapshot = { state, present, moods, vocabulary, mood, currentSit };
    } else {
      this.snapshot = NOT_JOINED;
    }
    for (const listener of this.#listeners) listener();
  };
}

/** Outside of a provider, the functions do nothing. */
const NO_SESSION = new Session();
NO_SESSION.run = () => {};

const SessionContext = createContext(NO_SESSION);

export interface PresenceProviderProps extends JoinOptions {
  children?: ReactNode;
}

/**
 * Joins the room while it is mounted. A change of `hub`, `room` or `visitor` leaves and joins again. `mood` is the
 * initial mood; of `token` the newest value is used.
 */
export function PresenceProvider({ children, ...options }: PresenceProviderProps) {
  const { hub, room, visitor, token } = options;
  const key = JSON.stringify([hub, room, visitor]);
  const session = useMemo(() => new Session(), [key]);
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  const newestToken = useCallback(async () => {
    const { token } = latest.current;
    return typeof token === "function" ? token() : token;
  }, []) satisfies TokenOption;
  useEffect(() => session.join({ ...latest.current, token: newestToken }), [session, newestToken]);
  const text = typeof token === "string" ? token : undefined;
  const joinedWith = useRef(text);
  useEffect(() => {
    if (text !== joinedWith.current) session.room?.setToken(newestToken);
    joinedWith.current = text;
  }, [session, newestToken, text]);
  return <SessionContext.Provider value={session}>{children}</SessionContext.Provider>;
}

/** Returns the functions of the room. The component does not render again when the room changes. */
export function useRoom(): RoomActions {
  return useContext(SessionContext).actions;
}

/** Returns the state of the room, with its functions. The component renders again with each change. */
export function usePresence(): Presence;
/**
 * Returns what `select` takes from the state of the room. The component renders again only when that changes, so
 * `select` must not return a new object each time.
 */
export function usePresence<T>(select: (snapshot: RoomSnapshot) => T): T;
export function usePresence<T>(select?: (snapshot: RoomSnapshot) => T): T | Presence {
  const session = useContext(SessionContext);
  const get = (snapshot: RoomSnapshot) => (select ? select(snapshot) : snapshot);
  const selected = useSyncExternalStore(
    session.subscribe,
    () => get(session.snapshot),
    () => get(NOT_JOINED),
  );
  return useMemo(
    () => (select ? selected : { ...selected, ...session.actions }) as T | Presence,
    [!select, selected, session],
  );
}

export interface MediaWatch extends Omit<Watch, "attach"> {
  /** The ref of the `<audio>` or `<video>` to follow. */
  readonly ref: RefCallback<HTMLMediaElement>;
}

/**
 * Returns a watch session, whose functions stay the same while the room and `content` do. It pauses when the component
 * unmounts; it ends when the media does, or by `end()`. Only the first render's options are used.
 */
export function useWatch(content: string, options?: WatchOptions): MediaWatch {
  const session = useContext(SessionContext);
  const [media, ref] = useState<HTMLMediaElement | null>(null);
  const first = useRef(options);
  const current = useRef<Watch>(undefined);
  useEffect(() => {
    let isMounted = true;
    session.run((room) => {
      if (isMounted) current.current = room.watch(content, first.current);
    });
    return () => {
      isMounted = false;
      current.current?.pause();
      current.current = undefined;
    };
  }, [session, content]);
  useEffect(() => {
    let detach: (() => void) | undefined;
    let isMounted = true;
    if (media) session.run(() => (detach = isMounted ? current.current?.attach(media) : undefined));
    return () => {
      isMounted = false;
      detach?.();
    };
  }, [session, content, media]);
  return useMemo(() => {
    const run = (action: (watch: Watch) => void): void => session.run(() => current.current && action(current.current));
    return {
      ref,
      get watchedMs() {
        return current.current?.watchedMs ?? 0;
      },
      play: (positionMs) => run((watch) => watch.play(positionMs)),
      pause: (positionMs) => run((watch) => watch.pause(positionMs)),
      seek: (positionMs) => run((watch) => watch.seek(positionMs)),
      end: () => run((watch) => watch.end()),
    };
  }, [session, content]);
}
