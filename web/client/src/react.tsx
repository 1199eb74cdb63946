/** For React: a room as a provider, and what happens in it as hooks. The rest of the library knows no React. */

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

/** Undefined until the provider is mounted, and on servers. */
const RoomContext = createContext<Room | undefined>(undefined);

export interface PresenceProviderProps extends JoinOptions {
  children?: ReactNode;
}

/**
 * Is in the room for as long as it is mounted. Another `hub`, `room` or `visitor` is another place; of
 * `mood` the first value counts, of `token` the newest.
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

/** The room as it is now. The functions change when the room does, so name them as dependencies of effects. */
export interface Presence extends Snapshot {
  setMood(mood: string | null): void;
  pageView(path?: string, options?: PageViewOptions): void;
}

const NOWHERE: Snapshot = { state: "connecting", present: 0, moods: {}, vocabulary: [], mood: null };

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
    () => (room ? read(room) : NOWHERE),
    () => NOWHERE,
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

/** The same object for as long as nothing changes, which is how React sees that nothing did. */
function read(room: Room): Snapshot {
  const last = snapshots.get(room);
  const { state, present, moods, vocabulary, mood } = room;
  const now: Snapshot = { state, present, moods, vocabulary, mood };
  const keys = Object.keys(now) as (keyof Snapshot)[];
  if (last && keys.every((key) => last[key] === now[key])) return last;
  snapshots.set(room, now);
  return now;
}

export interface MediaWatch extends Omit<Watch, "attach"> {
  /** For an `<audio>` or `<video>` that is to be followed. */
  readonly ref: RefCallback<HTMLMediaElement>;
}

/** A watch session of this content, which ends with the component. The options are those of the first render. */
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
