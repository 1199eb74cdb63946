// The live activity over a WebSocket with automatic reconnect.

import { subprotocols } from "../admin-token";
import { hub } from "../hub";

export interface Activity {
  liveUsers: number;
  sessions: number;
  rooms: { room: string; present: number; moods: Record<string, number> }[];
  moods: Record<string, number>;
  watching: { content: string; count: number }[];
  pages: { path: string; count: number }[];
}

const INITIAL_BACKOFF = 500; // ms; doubles with each failed attempt
const MAX_BACKOFF = 30_000; // ms

/** Calls `onActivity` with each new activity, and with null when the connection is lost. */
export function subscribeActivity(onActivity: (activity: Activity | null) => void): void {
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;

  function connect(): void {
    clearTimeout(timer);
    const opened = new WebSocket(`${hub().replace(/^http/, "ws")}/live`, subprotocols());
    socket = opened;
    opened.onmessage = ({ data }) => {
      failures = 0;
      onActivity(JSON.parse(data as string) as Activity);
    };
    opened.onclose = () => {
      if (socket !== opened) return;
      socket = undefined;
      onActivity(null);
      // Full jitter, so that clients do not reconnect to a restarted hub at the same time.
      timer = setTimeout(connect, Math.random() * Math.min(MAX_BACKOFF, INITIAL_BACKOFF * 2 ** failures++));
    };
  }

  function connectNow(): void {
    if (socket) return;
    failures = 0;
    connect();
  }

  addEventListener("online", connectNow);
  // An open socket keeps a page out of the back/forward cache.
  addEventListener("pagehide", () => {
    const closing = socket;
    socket = undefined;
    clearTimeout(timer);
    closing?.close();
    onActivity(null);
  });
  addEventListener("pageshow", ({ persisted }) => persisted && connectNow());
  connect();
}
