/** What the tests of rooms share: a hub, rooms that are left after each test, and waiting for their events. */

import { afterEach, beforeEach, vi } from "vitest";
import { type JoinOptions, joinRoom, type Room, type RoomError } from "../src/index.js";
import { BrowserSocket, type HubSession, TestHub } from "./test-hub.js";

export let hub: TestHub;
const rooms: Room[] = [];
/** URL and body of each beacon. */
export let beacons: [string, any][] = [];

/** Sets up each test of a file. */
export function useHub(): void {
  beforeEach(async () => {
    beacons = [];
    vi.spyOn(navigator, "sendBeacon").mockImplementation((url, body) => {
      beacons.push([String(url), JSON.parse(body as string)]);
      return true;
    });
    vi.stubGlobal("WebSocket", BrowserSocket);
    localStorage.clear();
    hub = await TestHub.open();
  });

  afterEach(async () => {
    vi.useRealTimers();
    vi.restoreAllMocks();
    for (const room of rooms.splice(0)) room.leave();
    await hub.close();
    vi.unstubAllGlobals();
  });
}

export function join(options: Partial<JoinOptions> = {}): Room {
  const room = joinRoom({ hub: hub.address, room: "lobby", visitor: "ann", ...options });
  rooms.push(room);
  return room;
}

/** Joins and receives the welcome. */
export async function enter(options: Partial<JoinOptions> = {}, welcome: object = {}): Promise<[Room, HubSession]> {
  const room = join(options);
  const session = await hub.session(hub.sessions.length + 1);
  session.welcome(welcome);
  await waitForState(room, "open");
  return [room, session];
}

/** Breaks the connection and receives the welcome of the next one. */
export async function reconnect(room: Room, welcome: object = {}): Promise<HubSession> {
  const count = hub.sessions.length;
  hub.sessions[count - 1]!.socket.terminate();
  const session = await hub.session(count + 1);
  session.welcome(welcome);
  await waitForState(room, "open");
  return session;
}

export function next<E extends Event>(target: EventTarget, type: string): Promise<E> {
  return new Promise((resolve) =>
    target.addEventListener(type, (event) => resolve(event as E), { once: true }),
  );
}

export async function waitForState(room: Room, wanted: Room["state"]): Promise<void> {
  while (room.state !== wanted) await next(room, "state");
}

export const nextError = async (room: Room): Promise<RoomError> =>
  (await next<CustomEvent<RoomError>>(room, "error")).detail;

/** Collects the errors of a room from now on. */
export function errorsOf(room: Room): RoomError[] {
  const errors: RoomError[] = [];
  room.addEventListener("error", ({ detail }) => errors.push(detail));
  return errors;
}

export const stored = (): any[] =>
  Object.entries(localStorage)
    .filter(([key]) => key.startsWith("breathing-room:event:"))
    .map(([, text]) => JSON.parse(text));

/** A token that expires in `seconds`. Its base64url has characters that base64 lacks. */
export function jwt(seconds: number, id = 0): string {
  const claims = JSON.stringify({ sub: "ann??>>", id, exp: Math.round(Date.now() / 1_000) + seconds });
  return `h.${btoa(claims).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "")}.s`;
}

/** Replaces timers of at least `from` ms, which do not fire by themselves, except the limit of an attempt. */
export function captureTimers(from: number) {
  const all = new Set<{ fire: () => void; wait: number }>();
  const { setTimeout, clearTimeout } = globalThis;
  vi.spyOn(globalThis, "setTimeout").mockImplementation(((what: () => void, wait = 0) => {
    if (wait < from || wait === 30_000) return setTimeout(what, wait);
    const timer = { fire: what, wait };
    all.add(timer);
    return timer;
  }) as unknown as typeof setTimeout);
  vi.spyOn(globalThis, "clearTimeout").mockImplementation((timer) => {
    if (!all.delete(timer as never)) clearTimeout(timer);
  });
  return {
    /** The last timer that was set and not cleared. */
    get last() {
      return [...all].at(-1);
    },
  };
}

export const pageEvent = (type: string, persisted: boolean): Event => Object.assign(new Event(type), { persisted });

/** Hides or shows the page. */
export function setHidden(hidden: boolean): void {
  vi.spyOn(document, "hidden", "get").mockReturnValue(hidden);
  document.dispatchEvent(new Event("visibilitychange"));
}
