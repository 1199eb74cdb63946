// The live activity over its socket, for as long as the page is there.

import { protocols } from "../admin";

export interface Activity {
  liveUsers: number;
  sessions: number;
  rooms: { room: string; present: number; moods: Record<string, number> }[];
  moods: Record<string, number>;
  watching: { content: string; count: number }[];
  pages: { path: string; count: number }[];
}

const FIRST_WAIT = 500; // ms; doubles with every failed try
const LONGEST_WAIT = 30_000; // ms

/** Calls `show` with every new activity, and with null when there is none that holds. */
export function follow(show: (activity: Activity | null) => void): void {
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let tries = 0;

  function connect(): void {
    clearTimeout(timer);
    const opened = new WebSocket(new URL("/live", location.href.replace(/^http/, "ws")), protocols());
    socket = opened;
    opened.onmessage = ({ data }) => {
      tries = 0;
      show(JSON.parse(data as string) as Activity);
    };
    opened.onclose = () => {
      if (socket !== opened) return;
      socket = undefined;
      show(null);
      // Full jitter, so that a hub that restarts is not met by everybody at once.
      timer = setTimeout(connect, Math.random() * Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** tries++));
    };
  }

  function connectNow(): void {
    if (socket) return;
    tries = 0;
    connect();
  }

  addEventListener("online", connectNow);
  // A page with an open socket cannot wait in the back/forward cache.
  addEventListener("pagehide", () => {
    const left = socket;
    socket = undefined;
    clearTimeout(timer);
    left?.close();
    show(null);
  });
  addEventListener("pageshow", ({ persisted }) => persisted && connectNow());
  connect();
}
