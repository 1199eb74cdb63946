// @vitest-environment happy-dom

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type JoinOptions, joinRoom, type Room, type RoomError } from "../src/index.js";
import { BrowserSocket, type Member, TestHub } from "./hub.js";

let hub: TestHub;
const rooms: Room[] = [];
/** Addresses and bodies: a page that goes does not wait to see what became of its beacons. */
let beacons: [string, any][] = [];

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
  for (const room of rooms.splice(0)) room.leave();
  await hub.close();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

function join(options: Partial<JoinOptions> = {}): Room {
  const room = joinRoom({ hub: hub.address, room: "lobby", visitor: "ann", ...options });
  rooms.push(room);
  return room;
}

/** Joins and is let in. */
async function enter(options: Partial<JoinOptions> = {}): Promise<[Room, Member]> {
  const room = join(options);
  const member = await hub.member(hub.members.length + 1);
  member.welcome();
  await state(room, "open");
  return [room, member];
}

function next<E extends Event>(room: Room, type: string): Promise<E> {
  return new Promise((resolve) =>
    room.addEventListener(type, (event) => resolve(event as E), { once: true }),
  );
}

async function state(room: Room, wanted: Room["state"]): Promise<void> {
  while (room.state !== wanted) await next(room, "state");
}

const nextError = async (room: Room): Promise<RoomError> =>
  (await next<CustomEvent<RoomError>>(room, "error")).detail;

const kept = (): any[] =>
  Object.entries(localStorage)
    .filter(([key]) => key.startsWith("breathing-room:event:"))
    .map(([, text]) => JSON.parse(text));

/** A token that ends in so many seconds, with characters that base64url has and base64 has not. */
function jwt(seconds: number, id = 0): string {
  const claims = JSON.stringify({ sub: "ann??>>", id, exp: Math.round(Date.now() / 1_000) + seconds });
  return `h.${btoa(claims).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "")}.s`;
}

const pageEvent = (type: string, persisted: boolean): Event => Object.assign(new Event(type), { persisted });

describe("being in a room", () => {
  test("is a socket, and the counts are what the hub says", async () => {
    const room = join();
    expect([room.state, room.present]).toEqual(["connecting", 0]);
    const member = await hub.member(1);
    expect(member.path).toBe("/rooms/lobby/socket");
    expect(member.protocols).toEqual(["breathing-room.v1", "visitor.ann"]);
    member.welcome();
    await next(room, "presence");
    expect(room).toMatchObject({
      state: "open",
      present: 3,
      moods: { calm: 1 },
      vocabulary: ["calm", "joy"],
    });
    member.say({ type: "presence", present: 4, moods: {} });
    await next(room, "presence");
    expect(room).toMatchObject({ present: 4, moods: {} });
  });

  test("is nothing that the page shows any longer when the socket is gone", async () => {
    const [room, member] = await enter();
    member.socket.terminate();
    await next(room, "presence");
    expect(room).toMatchObject({ state: "waiting", present: 0, moods: {} });
    (await hub.member(2)).welcome();
    await next(room, "presence");
    expect(room).toMatchObject({ state: "open", present: 3 });
  });

  test("ends with a clean close when it is left, and does not begin again", async () => {
    const [room, member] = await enter();
    room.leave();
    expect(await member.closed).toBe(1000);
    dispatchEvent(new Event("online"));
    expect(room).toMatchObject({ state: "closed", present: 0 });
    expect(hub.members).toHaveLength(1);
  });

  test("that is left before it began opens no socket", async () => {
    const left = join();
    left.leave();
    const [, member] = await enter({ visitor: "ben" });
    expect(member.visitor).toBe("ben");
    expect(hub.members).toHaveLength(1);
  });

  test("ends where the hub does not want us", async () => {
    const [room, member] = await enter();
    member.socket.close(1008);
    await state(room, "closed");
  });

  test("is tried again at once when the browser is online again", async () => {
    const [room, member] = await enter();
    dispatchEvent(new Event("offline"));
    expect(room).toMatchObject({ state: "waiting", present: 0 });
    dispatchEvent(new Event("online"));
    expect(room.state).toBe("connecting");
    expect(await member.closed).toBe(4000);
    (await hub.member(2)).welcome();
    await state(room, "open");
  });

  test("is given up for the back/forward cache, and back at once after it", async () => {
    const [room, member] = await enter();
    dispatchEvent(pageEvent("pagehide", true));
    dispatchEvent(pageEvent("pageshow", true));
    expect(await member.closed).toBe(4000);
    (await hub.member(2)).welcome();
    await state(room, "open");
  });

  test("needs a good room and visitor", () => {
    for (const room of ["", "Lobby", "-a", "a b", "x".repeat(65)])
      expect(() => join({ room })).toThrow(TypeError);
    for (const visitor of ["", "a b", "x".repeat(65)]) expect(() => join({ visitor })).toThrow(TypeError);
  });

  test("is for the same visitor at the next visit", async () => {
    const room = join({ visitor: undefined });
    expect(room.visitor).toMatch(/^[0-9a-f]{32}$/);
    expect(join({ visitor: undefined }).visitor).toBe(room.visitor);
  });

  test("works in a browser that keeps nothing", async () => {
    vi.stubGlobal("localStorage", undefined);
    const [room, member] = await enter({ visitor: undefined });
    expect(join({ visitor: undefined }).visitor).toBe(room.visitor);
    room.pageView("/a");
    expect(await member.hears(1)).toMatchObject([{ type: "page-view" }]);
  });
});

describe("a token", () => {
  test("is offered as one more subprotocol", async () => {
    const [, member] = await enter({ token: "a.b.c" });
    expect(member.protocols).toEqual(["breathing-room.v1", "visitor.ann", "bearer.a.b.c"]);
  });

  test("is asked for anew at each connect", async () => {
    let asked = 0;
    const [, member] = await enter({ token: async () => jwt(3_600, ++asked) });
    member.socket.terminate();
    expect((await hub.member(2)).protocols).toContain(`bearer.${jwt(3_600, 2)}`);
  });

  test("that cannot be had is told, and asked for again", async () => {
    let asked = 0;
    const token = jwt(3_600);
    const room = join({ token: () => (asked++ ? token : Promise.reject(new Error("no session"))) });
    expect(await nextError(room)).toEqual({ code: "connect", message: "Error: no session" });
    expect((await hub.member(1)).protocols).toContain(`bearer.${token}`);
  });

  test("is followed by another one before it ends, on the same socket", async () => {
    const tokens = [jwt(65.05, 1), jwt(65.05, 2), jwt(3_600, 3)];
    let asked = 0;
    let tick!: () => void;
    const timers = vi.spyOn(globalThis, "setTimeout").mockImplementation((what, wait) => {
      if (wait! > 4_000) [tick, lastWait] = [what as () => void, wait!];
      else queueMicrotask(what as () => void);
      return 0 as never;
    });
    let lastWait = 0;
    const [, member] = await enter({ token: () => tokens[asked++]! });
    for (const token of tokens.slice(1)) {
      expect(lastWait).toBeLessThan(6_000);
      tick();
      expect((await member.hears(asked - 1)).at(-1)).toEqual({ type: "token", token });
    }
    expect(lastWait).toBeGreaterThan(3_500_000);
    timers.mockRestore();
    expect(hub.members).toHaveLength(1);
  });

  test("of which no other can be had is tried on a new socket", async () => {
    let asked = 0;
    let tick!: () => void;
    const timers = vi.spyOn(globalThis, "setTimeout").mockImplementation((what) => {
      tick = what as () => void;
      return 0 as never;
    });
    const token = () => (asked++ === 1 ? Promise.reject(new Error("no session")) : jwt(65));
    const [room, member] = await enter({ token });
    timers.mockRestore();
    tick();
    expect(await member.closed).toBe(4000);
    expect(room.state).toBe("waiting");
    expect((await hub.member(2)).protocols).toContain(`bearer.${jwt(65)}`);
  });

  test("that is a text is all there is: no timer waits for its end", async () => {
    const timers = vi.spyOn(globalThis, "setTimeout");
    const [, member] = await enter({ token: jwt(1) });
    expect(timers.mock.calls.filter(([what]) => String(what).includes("newToken"))).toEqual([]);
    expect(member.heard).toEqual([]);
  });

  test("comes with what is posted", async () => {
    const [before, first] = await enter({ room: "garden" });
    before.pageView("/garden");
    await first.hears(1);
    first.socket.terminate();
    before.leave();
    await enter({ token: "a.b.c" });
    const [post] = await hub.posted(1);
    expect(post!.headers.authorization).toBe("Bearer a.b.c");
  });
});

describe("a mood", () => {
  test("is told, cleared, and kept through a reconnect", async () => {
    const [room, member] = await enter();
    room.setMood("joy");
    expect(room.mood).toBe("joy");
    room.setMood(null);
    room.setMood("calm");
    expect((await member.hears(3)).map(({ mood }) => mood)).toEqual(["joy", null, "calm"]);
    member.socket.terminate();
    const back = await hub.member(2);
    back.welcome();
    expect(await back.hears(1)).toEqual([{ type: "mood", mood: "calm" }]);
    expect(back.path).toBe("/rooms/lobby/socket");
  });

  test("to come in with is told after the welcome, once it is known to be one of the hub's", async () => {
    const [, member] = await enter({ mood: "joy" });
    expect(member.path).toBe("/rooms/lobby/socket");
    expect(await member.hears(1)).toEqual([{ type: "mood", mood: "joy" }]);
  });

  test("that the hub does not have is refused here", async () => {
    const room = join({ mood: "grumpy" });
    const refused = nextError(room);
    const member = await hub.member(1);
    member.welcome();
    expect((await refused).code).toBe("unknown-mood");
    expect(room.mood).toBeNull();
    const again = nextError(room);
    room.setMood("grumpier");
    expect((await again).code).toBe("unknown-mood");
    room.setMood("calm");
    expect(await member.hears(1)).toEqual([{ type: "mood", mood: "calm" }]);
  });

  test("cleared while the socket was gone is cleared after it", async () => {
    const [room, member] = await enter({ mood: "joy" });
    await member.hears(1);
    member.socket.terminate();
    await state(room, "waiting");
    room.setMood(null);
    const back = await hub.member(2);
    back.welcome();
    expect(await back.hears(1)).toEqual([{ type: "mood", mood: null }]);
  });
});

describe("an event", () => {
  test("is told at once, with its time, and kept until the ack", async () => {
    const [room, member] = await enter();
    room.pageView("/a", { title: "A", props: { n: 1 } });
    const [heard] = await member.hears(1);
    expect(heard).toMatchObject({ type: "page-view", ref: 1, path: "/a", title: "A", props: { n: 1 } });
    expect(Math.abs(Date.now() - (heard!.at as number))).toBeLessThan(5_000);
    expect(kept()).toMatchObject([{ id: heard!.id, room: "lobby", visitor: "ann" }]);
    member.say({ type: "ack", upTo: 1 });
    await vi.waitFor(() => expect(kept()).toEqual([]));
  });

  test("that was not acked is sent again after a reconnect: a new ref, the same id", async () => {
    const [room, member] = await enter();
    room.pageView("/a");
    room.pageView("/b");
    const [a, b] = await member.hears(2);
    member.say({ type: "ack", upTo: 1 });
    await vi.waitFor(() => expect(kept()).toHaveLength(1));
    member.socket.terminate();
    await state(room, "waiting");
    room.pageView("/c");
    const back = await hub.member(2);
    back.welcome();
    const heard = await back.hears(2);
    expect(heard).toMatchObject([
      { ref: 1, id: b!.id, path: "/b" },
      { ref: 2, path: "/c" },
    ]);
    expect(heard.map(({ id }) => id)).not.toContain(a!.id);
  });

  test("of the page before this one is sent first", async () => {
    const before = join();
    before.pageView("/before");
    before.leave();
    const [room, member] = await enter();
    room.pageView("/now");
    expect((await member.hears(2)).map(({ path }) => path)).toEqual(["/before", "/now"]);
  });

  test("from another room is posted, and gone when it is committed", async () => {
    const before = join({ room: "garden" });
    before.pageView("/before");
    before.leave();
    await enter();
    const [post] = await hub.posted(1);
    expect(post).toMatchObject({
      path: "/page-view?durable=true",
      body: [{ room: "garden", visitor: "ann" }],
    });
    await vi.waitFor(() => expect(kept()).toEqual([]));
  });

  test("beyond the first few that waited is posted, all of them at once", async () => {
    const room = join();
    for (let n = 0; n < 50; n++) room.pageView(`/${n}`);
    const member = await hub.member(1);
    member.welcome();
    const heard = (await member.hears(8)).map(({ path }) => path);
    const [post] = await hub.posted(1);
    const posted = post!.body.map(({ path }) => path);
    expect(new Set([...heard, ...posted]).size).toBe(50);
    expect([heard.length, posted.length]).toEqual([8, 42]);
    await vi.waitFor(() => expect(kept()).toHaveLength(8));
    member.say({ type: "ack", upTo: 8 });
    await vi.waitFor(() => expect(kept()).toEqual([]));
  });

  test("that the hub will not take is dropped and told", async () => {
    const [room, member] = await enter();
    room.pageView("");
    await member.hears(1);
    member.say({ type: "error", ref: 1, code: "bad-field", message: "path: must not be empty" });
    expect(await nextError(room)).toEqual({ code: "bad-field", message: "path: must not be empty" });
    expect(kept()).toEqual([]);
  });

  test.each(["overloaded", "too-fast"])("that is refused as %s waits and is sent again", async (code) => {
    const [room, member] = await enter();
    room.pageView("/a");
    const [first] = await member.hears(1);
    member.say({ type: "error", ref: 1, code, message: "" });
    await new Promise((resolve) => setTimeout(resolve, 100));
    room.pageView("/b"); // has to wait as well
    expect(member.heard).toHaveLength(1);
    const [, a, b] = await member.hears(3);
    expect([a, b]).toMatchObject([
      { ref: 2, id: first!.id },
      { ref: 3, path: "/b" },
    ]);
  });

  test("over 4 KiB is refused here, and nothing is cut", async () => {
    const [room, member] = await enter();
    const refused = nextError(room);
    room.pageView("/a", { title: "é".repeat(2_000) });
    expect((await refused).code).toBe("too-large");
    room.pageView("/b");
    expect((await member.hears(1))[0]!.path).toBe("/b");
    expect(kept()).toHaveLength(1);
  });

  test("is not made where the visitor wants privacy; presence stays", async () => {
    vi.spyOn(navigator, "doNotTrack", "get").mockReturnValue("1");
    const [room, member] = await enter();
    room.pageView("/a");
    room.watch("sunrise").play();
    room.setMood("joy");
    expect(await member.hears(1)).toEqual([{ type: "mood", mood: "joy" }]);
    expect(kept()).toEqual([]);
  });

  test("that is left when the page goes is handed to a beacon, and kept", async () => {
    const [room, member] = await enter();
    room.pageView("/a");
    room.watch("sunrise").play();
    await member.hears(2);
    dispatchEvent(pageEvent("pagehide", false));
    expect(beacons).toMatchObject([
      [`${hub.address}/page-view`, [{ path: "/a", room: "lobby", visitor: "ann" }]],
      [
        `${hub.address}/watch-session`,
        [{ content: "sunrise", state: "paused", room: "lobby", visitor: "ann" }],
      ],
    ]);
    expect(kept()).toHaveLength(2);
  });
});

describe("a watch session that plays", () => {
  test("is told again after a reconnect, under the same id", async () => {
    const [room, member] = await enter();
    room.watch("sunrise", { durationMs: 60_000 }).play(0);
    const [first] = await member.hears(1);
    member.say({ type: "ack", upTo: 1 });
    await vi.waitFor(() => expect(kept()).toEqual([]));
    member.socket.terminate();
    const back = await hub.member(2);
    back.welcome();
    const [again] = await back.hears(1);
    expect(again).toMatchObject({
      type: "watch",
      ref: 1,
      id: first!.id,
      state: "playing",
      durationMs: 60_000,
    });
    expect(again!.watchedMs).toBeGreaterThanOrEqual(first!.watchedMs as number);
    expect(again!.startedAt).toBe(first!.startedAt);
    expect(again!.at).toBeGreaterThan(first!.at as number);
  });

  test("pauses while its page is put aside, and goes on after it", async () => {
    const [room] = await enter();
    room.watch("sunrise").play();
    dispatchEvent(pageEvent("pagehide", true));
    expect(kept()).toMatchObject([{ state: "paused" }]);
    dispatchEvent(pageEvent("pageshow", true));
    const back = await hub.member(2);
    back.welcome();
    expect((await back.hears(1))[0]).toMatchObject({ state: "playing" });
  });

  test("is paused by leaving", async () => {
    const [room, member] = await enter();
    room.watch("sunrise").play();
    room.leave();
    expect((await member.hears(2)).map(({ state }) => state)).toEqual(["playing", "paused"]);
  });
});
