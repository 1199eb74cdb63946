// The live activity over a WebSocket with automatic reconnect.
//
// A browser does not show the hub's pings to a page, so a path that is dead looks open for minutes. After a quiet
// time, and at once after the page may have slept, the page sends a message: the hub answers each one.

import { subprotocols } from "../admin-token";
import { hub } from "../hub";
import type { NodeCounts } from "./nodes";

export interface Activity {
  /** Only in a cluster. */
  cluster?: NodeCounts;
  liveUsers: number;
  sessions: number;
  /** `held`: those of `present` without a socket now. */
  rooms: { room: string; present: number; held: number; moods: Record<string, number> }[];
  moods: Record<string, number>;
  watching: { content: string; count: number }[];
  pages: { path: string; count: number }[];
}

/** The live activity, as far as it is known. */
export type Live =
  | { state: "open"; activity: Activity }
  /** The path may be dead. `heardAt`: the last sign of life, by `Date.now()`. */
  | { state: "checking"; heardAt: number }
  | { state: "lost" };

const INITIAL_BACKOFF = 500; // ms; doubles with each failed attempt
const MAX_BACKOFF = 30_000; // ms
const QUIET = 60_000; // ms without a message until a visible page asks
const ANSWER_WITHIN = 3_000; // ms
const TICK = 5_000; // ms
const LATE = 5_000; // ms that a timer is late after a sleep

/** Calls `onChange` with each new activity, when the path is in doubt, and when the connection is lost. */
export function subscribeActivity(onChange: (live: Live) => void): void {
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let activity: Activity | undefined;
  let heardAt = 0;
  let deadline: ReturnType<typeof setTimeout> | undefined;

  function connect(): void {
    clearTimeout(timer);
    const opened = new WebSocket(`${hub().replace(/^http/, "ws")}/live`, subprotocols());
    socket = opened;
    opened.onmessage = ({ data }) => {
      if (socket !== opened) return;
      failures = 0;
      onMessage(JSON.parse(data as string) as Partial<Activity> & { type: string });
    };
    opened.onclose = () => socket === opened && lose();
  }

  function onMessage(message: Partial<Activity> & { type: string }): void {
    heardAt = Date.now();
    const wasChecking = deadline !== undefined;
    clearTimeout(deadline);
    deadline = undefined;
    if (message.type === "live-activity") activity = message as Activity;
    else if (!wasChecking) return;
    if (activity) onChange({ state: "open", activity });
  }

  /** Forgets the socket and connects again after the backoff. */
  function lose(): void {
    drop();
    // Full jitter, so that clients do not reconnect to a restarted hub at the same time.
    timer = setTimeout(connect, Math.random() * Math.min(MAX_BACKOFF, INITIAL_BACKOFF * 2 ** failures++));
  }

  function drop(): void {
    const dropped = socket;
    socket = activity = undefined;
    clearTimeout(timer);
    clearTimeout(deadline);
    deadline = undefined;
    dropped?.close();
    onChange({ state: "lost" });
  }

  /** Asks whether the path lives. Without an answer the socket is dropped, although it looks open. */
  function check(): void {
    if (document.hidden || deadline !== undefined || !activity || socket?.readyState !== WebSocket.OPEN) return;
    socket.send('{"type":"ping"}');
    deadline = setTimeout(lose, ANSWER_WITHIN);
    onChange({ state: "checking", heardAt });
  }

  function connectNow(): void {
    if (socket) return check();
    failures = 0;
    connect();
  }

  let ticked = Date.now();
  setInterval(() => {
    const late = Date.now() - ticked - TICK;
    ticked = Date.now();
    if (late > LATE || ticked - heardAt > QUIET - TICK) check();
  }, TICK);
  document.addEventListener("visibilitychange", check);
  document.addEventListener("resume", check);
  addEventListener("online", connectNow);
  // An open socket keeps a page out of the back/forward cache.
  addEventListener("pagehide", drop);
  addEventListener("pageshow", ({ persisted }) => persisted && connectNow());
  connect();
}
