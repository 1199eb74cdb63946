/** React bindings: a provider that joins a room, and hooks. No other file knows React. */

import {
  type JoinOptions,
  joinRoom,
  type PageViewOptions,
  type Room,
  type RoomState,
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

/** Undefined before the provider is mounted, and on servers. */
const RoomContext = createContext<Room | undefined>(undefined);

export interface PresenceProviderProps extends JoinOptions {
  children?: ReactNode;
}

/**
 * Joins the room while it is mounted. A change of `hub`, `room` or `visitor` leaves and joins again. `mood` is the
 * initial mood; of `token` the newest value is used.
 */
export function PresenceProvider({ children, hub, room: name, visitor, mood, token }: PresenceProviderProps) {
  const [room, setRoom] = useState<Room>();
  const latest = useRef({ mood, token });
  useEffect(() => {
    latest.current = { mood, token };
  });
  useEffect(() => {
    const joined = joinRoom({
      hub,
      room: name,
      visitor,
      mood: latest.current.mood,
      token: async () => {
        const { token = "" } = latest.current;
        return typeof token === "function" ? token() : token;
      },
    });
    setRoom(joined);
    return () => {
      joined.leave();
      setRoom(undefined);
    };
  }, [hub, name, visitor]);
  return <RoomContext.Provider value={room}>{children}</RoomContext.Provider>;
}

interface Snapshot {
  readonly state: RoomState;
  readonly present: number;
  readonly moods: Readonly<Record<string, number>>;
  readonly vocabulary: readonly string[];
  readonly mood: string | null;
}

/** The current state of the room. The functions change with it, so list them as dependencies of effects. */
export interface Presence extends Snapshot {
  setMood(mood: string | null): void;
  pageView(path?: string, options?: PageViewOptions): void;
}

const NOT_JOINED: Snapshot = { state: "connecting", present: 0, moods: {}, vocabulary: [], mood: null };

export function usePresence(): Presence {
  const room = useContext(RoomContext);
  const subscribe = useCallback(
    (changed: () => void) => {
      room?.addEventListener("presence", changed);
      room?.addEventListener("state", changed);
      return () => {
        room?.removeEventListener("presence", changed);
        room?.removeEventListener("state", changed);
      };
    },
    [room],
  );
  const snapshot = useSyncExternalStore(
    subscribe,
    () => (room ? snapshotOf(room) : NOT_JOINED),
    () => NOT_JOINED,
  );
  return useMemo(
    () => ({
      ...snapshot,
      setMood: (mood) => room?.setMood(mood),
      pageView: (path, options) => room?.pageView(path, options),
    }),
    [snapshot, room],
  );
}

const snapshots = new WeakMap<Room, Snapshot>();

/** Returns the same object while nothing changes, as useSyncExternalStore requires. */
function snapshotOf(room: Room): Snapshot {
  const last = snapshots.get(room);
  const { state, present, moods, vocabulary, mood } = room;
  const now: Snapshot = { state, present, moods, vocabulary, mood };
  const keys = Object.keys(now) as (keyof Snapshot)[];
  if (last && keys.every((key) => last[key] === now[key])) return last;
  snapshots.set(room, now);
  return now;
}

export interface MediaWatch extends Omit<Watch, "attach"> {
  /** The ref of the `<audio>` or `<video>` to follow. */
  readonly ref: RefCallback<HTMLMediaElement>;
}

/** Returns a watch session that ends when the component unmounts. Only the first render's options are used. */
export function useWatch(content: string, options?: WatchOptions): MediaWatch {
  const room = useContext(RoomContext);
  const [media, ref] = useState<HTMLMediaElement | null>(null);
  const first = useRef(options);
  const watch = useMemo(() => room?.watch(content, first.current), [room, content]);
  useEffect(() => () => watch?.end(), [watch]);
  useEffect(() => (media ? watch?.attach(media) : undefined), [media, watch]);
  return useMemo(
    () => ({
      ref,
      get watchedMs() {
        return watch?.watchedMs ?? 0;
      },
      play: (positionMs) => watch?.play(positionMs),
      pause: (positionMs) => watch?.pause(positionMs),
      seek: (positionMs) => watch?.seek(positionMs),
      end: () => watch?.end(),
    }),
    [watch],
  );
}
