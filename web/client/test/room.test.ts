// @vitest-environment happy-dom

import { describe, expect, test, vi } from "vitest";
import {
  beacons,
  captureTimers,
  enter,
  hub,
  join,
  jwt,
  next,
  nextError,
  pageEvent,
  reconnect,
  stored,
  useHub,
  waitForState,
} from "./support.js";

useHub();

describe("joining a room", () => {
  test("opens a socket, and the hub's messages set the counts", async () => {
    const room = join();
    expect([room.state, room.present]).toEqual(["connecting", 0]);
    const session = await hub.session(1);
    expect(session.path).toBe("/rooms/lobby/socket?features=own-mood,own-sit,keepalive");
    expect(session.protocols).toEqual(["breathing-room.v1", "visitor.ann"]);
    session.welcome();
    await next(room, "presence");
    expect(room).toMatchObject({
      state: "open",
      present: 3,
      moods: { calm: 1 },
      vocabulary: ["calm", "joy"],
    });
    session.send({ type: "presence", present: 4, moods: {} });
    await next(room, "presence");
    expect(room).toMatchObject({ present: 4, moods: {} });
  });

  test("clears the counts when the socket is lost", async () => {
    const [room, session] = await enter();
    session.socket.terminate();
    await next(room, "presence");
    expect(room).toMatchObject({ state: "waiting", present: 0, moods: {} });
    (await hub.session(2)).welcome();
    await next(room, "presence");
    expect(room).toMatchObject({ state: "open", present: 3 });
  });

  test("ends with close code 1000 on leave, for good", async () => {
    const [room, session] = await enter();
    room.leave();
    expect(await session.closed).toBe(1000);
    dispatchEvent(new Event("online"));
    expect(room).toMatchObject({ state: "closed", present: 0 });
    expect(hub.sessions).toHaveLength(1);
  });

  test("opens no socket if the room is left at once", async () => {
    join().leave();
    const [, session] = await enter({ visitor: "ben" });
    expect(session.visitor).toBe("ben");
    expect(hub.sessions).toHaveLength(1);
  });

  test("ends after close code 1008", async () => {
    const [room, session] = await enter();
    session.socket.close(1008);
    await waitForState(room, "closed");
  });

  test("reconnects at once when the browser is online again", async () => {
    const [room, session] = await enter();
    dispatchEvent(new Event("offline"));
    expect(room).toMatchObject({ state: "waiting", present: 0 });
    dispatchEvent(new Event("online"));
    expect(room.state).toBe("connecting");
    expect(await session.closed).toBe(4000);
    (await hub.session(2)).welcome();
    await waitForState(room, "open");
  });

  test("disconnects for the back/forward cache and reconnects at once after it", async () => {
    const [room, session] = await enter();
    dispatchEvent(pageEvent("pagehide", true));
    dispatchEvent(pageEvent("pageshow", true));
    // Not 4000, with which a sit goes on.
    expect(await session.closed).toBe(4001);
    (await hub.session(2)).welcome();
    await waitForState(room, "open");
  });

  test("throws for an invalid room or visitor", () => {
    for (const room of ["", "Lobby", "-a", "a b", "x".repeat(65)])
      expect(() => join({ room })).toThrow(TypeError);
    for (const visitor of ["", "a b", "x".repeat(65)]) expect(() => join({ visitor })).toThrow(TypeError);
  });

  test("uses the stored visitor id", async () => {
    const room = join({ visitor: undefined });
    expect(room.visitor).toMatch(/^[0-9a-f]{32}$/);
    expect(join({ visitor: undefined }).visitor).toBe(room.visitor);
  });

  test("works without storage", async () => {
    vi.stubGlobal("localStorage", undefined);
    const [room, session] = await enter({ visitor: undefined });
    expect(join({ visitor: undefined }).visitor).toBe(room.visitor);
    room.pageView("/a");
    expect(await session.receive(1)).toMatchObject([{ type: "page-view" }]);
  });
});

describe("a token", () => {
  test("is offered as a subprotocol", async () => {
    const [, session] = await enter({ token: "a.b.c" });
    expect(session.protocols).toEqual(["breathing-room.v1", "visitor.ann", "bearer.a.b.c"]);
  });

  test("is requested at each connect", async () => {
    const tokens = [jwt(3_600, 1), jwt(3_600, 2)];
    let asked = 0;
    const [, session] = await enter({ token: async () => tokens[asked++]! });
    session.socket.terminate();
    expect((await hub.session(2)).protocols).toContain(`bearer.${tokens[1]}`);
  });

  test("request that fails is an error event, and is repeated", async () => {
    let asked = 0;
    const token = jwt(3_600);
    const room = join({ token: () => (asked++ ? token : Promise.reject(new Error("no session"))) });
    expect(await nextError(room)).toEqual({ code: "connect", message: "Error: no session" });
    expect((await hub.session(1)).protocols).toContain(`bearer.${token}`);
  });

  test("is renewed before its expiry, on the same socket", async () => {
    const tokens = [jwt(65, 1), jwt(65, 2), jwt(3_600, 3)];
    let asked = 0;
    const timers = captureTimers(2_400);
    const [, session] = await enter({ token: () => tokens[asked++]! });
    for (const token of tokens.slice(1)) {
      expect(timers.last!.wait).toBeLessThan(33_000);
      timers.last!.fire();
      expect((await session.receive(asked - 1)).at(-1)).toEqual({ type: "token", token });
    }
    expect(timers.last!.wait).toBeGreaterThan(3_500_000);
    expect(hub.sessions).toHaveLength(1);
  });

  test("renewal that fails is repeated, on the same socket", async () => {
    const timers = captureTimers(2_400);
    let asked = 0;
    const [room, session] = await enter({
      token: () => (asked++ === 1 ? Promise.reject(new Error("no session")) : jwt(65, asked)),
    });
    const failed = nextError(room);
    timers.last!.fire();
    expect(await failed).toEqual({ code: "token", message: "Error: no session" });
    await vi.waitFor(() => expect(timers.last!.wait).toBeLessThan(5_001));
    timers.last!.fire();
    expect(await session.receive(1)).toMatchObject([{ type: "token" }]);
    expect(room.state).toBe("open");
    expect(hub.sessions).toHaveLength(1);
  });

  test("given as a string is not renewed", async () => {
    const timers = captureTimers(2_400);
    const [, session] = await enter({ token: jwt(1) });
    expect(timers.last).toBeUndefined();
    expect(session.received).toEqual([]);
  });

  test("is sent with posted events", async () => {
    const [before, first] = await enter({ room: "garden" });
    before.pageView("/garden");
    await first.receive(1);
    first.socket.terminate();
    before.leave();
    await enter({ token: "a.b.c" });
    const [post] = await hub.posted(1);
    expect(post!.headers.authorization).toBe("Bearer a.b.c");
  });
});

describe("a mood", () => {
  test("is sent, cleared, and sent again after a reconnect", async () => {
    const [room, session] = await enter();
    room.setMood("joy");
    expect(room.mood).toBe("joy");
    room.setMood(null);
    room.setMood("calm");
    expect((await session.receive(3)).map(({ mood }) => mood)).toEqual(["joy", null, "calm"]);
    session.socket.terminate();
    const back = await hub.session(2);
    back.welcome();
    expect(await back.receive(1)).toEqual([{ type: "mood", mood: "calm" }]);
    expect(back.path).toBe("/rooms/lobby/socket?features=own-mood,own-sit,keepalive");
  });

  test("given to joinRoom is sent after the welcome", async () => {
    const [, session] = await enter({ mood: "joy" });
    expect(session.path).toBe("/rooms/lobby/socket?features=own-mood,own-sit,keepalive");
    expect(await session.receive(1)).toEqual([{ type: "mood", mood: "joy" }]);
  });

  test("outside the vocabulary is an error, and no mood", async () => {
    const [room, session] = await enter({ mood: "grumpy" });
    await session.receive(1);
    session.send({ type: "error", code: "unknown-mood", message: "mood: grumpy" });
    expect((await nextError(room)).code).toBe("unknown-mood");
    expect(room.mood).toBeNull();
    room.setMood("joy");
    const again = nextError(room);
    room.setMood("grumpier");
    expect((await again).code).toBe("unknown-mood");
    expect(room.mood).toBe("joy");
    expect((await session.receive(2)).at(-1)).toEqual({ type: "mood", mood: "joy" });
  });

  test("that the hub confirmed is not brought again by a reconnect: another tab may have changed it", async () => {
    const [room, session] = await enter();
    room.setMood("calm");
    await session.receive(1);
    session.send({ type: "own-mood", mood: "calm" });
    await next(room, "presence");
    const back = await reconnect(room, { mood: "joy" });
    expect(room.mood).toBe("joy");
    room.pageView("/a");
    expect(await back.receive(1)).toMatchObject([{ type: "page-view" }]);
  });

  test("that another tab has cleared does not come back", async () => {
    const [room] = await enter({}, { mood: "calm" });
    expect(room.mood).toBe("calm");
    const back = await reconnect(room, { mood: null });
    expect(room.mood).toBeNull();
    room.pageView("/a");
    expect(await back.receive(1)).toMatchObject([{ type: "page-view" }]);
  });

  test("that another tab sets is shown here", async () => {
    const [room, session] = await enter();
    session.send({ type: "own-mood", mood: "joy" });
    await next(room, "presence");
    expect(room.mood).toBe("joy");
  });

  test("on its way to the hub is not replaced by an earlier one of another tab", async () => {
    const [room, session] = await enter();
    room.setMood("joy");
    await session.receive(1);
    session.send({ type: "own-mood", mood: "calm" });
    session.send({ type: "own-mood", mood: "joy" });
    await next(room, "presence");
    expect(room.mood).toBe("joy");
    session.send({ type: "own-mood", mood: null });
    await next(room, "presence");
    expect(room.mood).toBeNull();
  });

  test("set several times is not replaced by its own earlier ones", async () => {
    const [room, session] = await enter();
    for (const mood of ["joy", "calm", "joy"]) room.setMood(mood);
    await session.receive(3);
    for (const mood of ["joy", "calm"]) session.send({ type: "own-mood", mood });
    session.send({ type: "presence", present: 1, moods: {} });
    await next(room, "presence");
    expect(room.mood).toBe("joy");
  });

  test("given to joinRoom does not replace the one that the visitor has", async () => {
    const [room, session] = await enter({ mood: "calm" }, { mood: "joy" });
    expect(room.mood).toBe("joy");
    room.pageView("/a");
    expect(await session.receive(1)).toMatchObject([{ type: "page-view" }]);
  });

  test("is asked for by the features of the socket", async () => {
    const [, session] = await enter();
    expect(session.path).toBe("/rooms/lobby/socket?features=own-mood,own-sit,keepalive");
  });

  test("is brought again to a hub that confirms none", async () => {
    const [room, session] = await enter();
    room.setMood("joy");
    await session.receive(1);
    session.socket.terminate();
    const back = await hub.session(2);
    back.oldWelcome();
    expect(await back.receive(1)).toEqual([{ type: "mood", mood: "joy" }]);
    expect(room.mood).toBe("joy");
  });

  test("cleared without a connection is cleared after the reconnect", async () => {
    const [room, session] = await enter({ mood: "joy" });
    await session.receive(1);
    session.socket.terminate();
    await waitForState(room, "waiting");
    room.setMood(null);
    const back = await hub.session(2);
    back.welcome();
    expect(await back.receive(1)).toEqual([{ type: "mood", mood: null }]);
  });
});

describe("an event", () => {
  test("has the referrer of another site, and not of its own", async () => {
    vi.spyOn(location, "origin", "get").mockReturnValue("https://app.example");
    const [room, session] = await enter();
    room.pageView("/a", { referrer: "https://app.example/before" });
    room.pageView("/b", { referrer: "https://app.example.org/" });
    const referrers = (await session.receive(2)).map(({ referrer }) => referrer);
    expect(referrers).toEqual([undefined, "https://app.example.org/"]);
  });

  test("that is the document's first page view has its referrer and utm parameters", async () => {
    vi.resetModules();
    const { joinRoom } = await import("../src/index.js");
    vi.spyOn(document, "referrer", "get").mockReturnValue("https://search.example/?q=breath");
    vi.spyOn(location, "search", "get").mockReturnValue("?utm_source=news&utm_campaign=may&id=7");
    const room = joinRoom({ hub: hub.address, room: "lobby", visitor: "ann" });
    room.pageView("/a", { props: { n: 1 } });
    room.pageView("/b");
    const session = await hub.session(1);
    session.welcome();
    const [first, second] = await session.receive(2);
    expect(first).toMatchObject({
      referrer: "https://search.example/?q=breath",
      props: { utm_source: "news", utm_campaign: "may", n: 1 },
    });
    expect([second!.referrer, second!.props]).toEqual([undefined, undefined]);
    room.leave();
  });

  test.each([
    ["ten minutes ahead", -600_000],
    ["eight days behind", 8 * 86_400_000],
  ])("of a device whose clock is %s has the hub's time, also if it was recorded before the welcome", async (_, by) => {
    const room = join();
    room.pageView("/before");
    const session = await hub.session(1);
    const serverTime = Date.now() + by;
    session.welcome({ serverTime });
    await waitForState(room, "open");
    room.pageView("/after");
    room.watch("sunrise").play();
    for (const { at, startedAt } of await session.receive(3)) {
      for (const time of [at, startedAt ?? at]) expect(Math.abs((time as number) - serverTime)).toBeLessThan(30_000);
    }
    dispatchEvent(pageEvent("pagehide", false));
    for (const [, events] of beacons) {
      for (const { at } of events) expect(Math.abs(at - serverTime)).toBeLessThan(30_000);
    }
    expect(beacons).toHaveLength(2);
  });

  test("after the device's clock was set has the hub's time", async () => {
    const [room, session] = await enter();
    const now = Date.now();
    vi.spyOn(Date, "now").mockImplementation(() => now - 8 * 86_400_000);
    session.send({ type: "presence", present: 4, moods: {} });
    await next(room, "presence");
    room.pageView("/after");
    expect(Math.abs(((await session.receive(1))[0]!.at as number) - now)).toBeLessThan(30_000);
  });

  test("of a page that is gone is corrected too", async () => {
    const before = join();
    before.pageView("/before");
    before.leave();
    const serverTime = Date.now() + 8 * 86_400_000;
    const [, session] = await enter({}, { serverTime });
    expect(Math.abs(((await session.receive(1))[0]!.at as number) - serverTime)).toBeLessThan(30_000);
  });

  test("with properties over the limit is sent without them, with an error", async () => {
    const [room, session] = await enter();
    const failed = nextError(room);
    room.pageView("/a", { props: { long: "x".repeat(1_100) } });
    expect(await failed).toEqual({ code: "too-large", message: "props" });
    const [event] = await session.receive(1);
    expect([event!.path, event!.props]).toEqual(["/a", undefined]);
  });

  test("of a watch session with a long name is cut", async () => {
    const [room, session] = await enter();
    room.watch("あ".repeat(400)).play();
    expect((await session.receive(1))[0]!.content).toBe("あ".repeat(170));
  });

  test("is sent at once, with its time, and stored until the ack", async () => {
    const [room, session] = await enter();
    room.pageView("/a", { title: "A", props: { n: 1 } });
    const [received] = await session.receive(1);
    expect(received).toMatchObject({ type: "page-view", ref: 1, path: "/a", title: "A", props: { n: 1 } });
    expect(Math.abs(Date.now() - (received!.at as number))).toBeLessThan(5_000);
    expect(stored()).toMatchObject([{ id: received!.id, room: "lobby", visitor: "ann" }]);
    session.send({ type: "ack", upTo: 1 });
    await vi.waitFor(() => expect(stored()).toEqual([]));
  });

  test("without an ack is sent again after a reconnect, with a new ref and the same id", async () => {
    const [room, session] = await enter();
    room.pageView("/a");
    room.pageView("/b");
    const [a, b] = await session.receive(2);
    session.send({ type: "ack", upTo: 1 });
    await vi.waitFor(() => expect(stored()).toHaveLength(1));
    session.socket.terminate();
    await waitForState(room, "waiting");
    room.pageView("/c");
    const back = await hub.session(2);
    back.welcome();
    const received = await back.receive(2);
    expect(received).toMatchObject([
      { ref: 1, id: b!.id, path: "/b" },
      { ref: 2, path: "/c" },
    ]);
    expect(received.map(({ id }) => id)).not.toContain(a!.id);
  });

  test("of the previous page is sent first", async () => {
    const before = join();
    before.pageView("/before");
    before.leave();
    const [room, session] = await enter();
    room.pageView("/now");
    expect((await session.receive(2)).map(({ path }) => path)).toEqual(["/before", "/now"]);
  });

  test("of another room is posted and then removed", async () => {
    const before = join({ room: "garden" });
    before.pageView("/before");
    before.leave();
    await enter();
    const [post] = await hub.posted(1);
    expect(post).toMatchObject({
      path: "/page-view?durable=true",
      body: [{ room: "garden", visitor: "ann" }],
    });
    await vi.waitFor(() => expect(stored()).toEqual([]));
  });

  test("beyond the window is posted, all in one request", async () => {
    const room = join();
    for (let n = 0; n < 50; n++) room.pageView(`/${n}`);
    const session = await hub.session(1);
    session.welcome();
    const received = (await session.receive(8)).map(({ path }) => path);
    const [post] = await hub.posted(1);
    const posted = post!.body.map(({ path }) => path);
    expect(new Set([...received, ...posted]).size).toBe(50);
    expect([received.length, posted.length]).toEqual([8, 42]);
    await vi.waitFor(() => expect(stored()).toHaveLength(8));
    session.send({ type: "ack", upTo: 8 });
    await vi.waitFor(() => expect(stored()).toEqual([]));
  });

  test("that the hub rejects is removed, with an error event", async () => {
    const [room, session] = await enter();
    room.pageView("");
    await session.receive(1);
    session.send({ type: "error", ref: 1, code: "bad-field", message: "path: must not be empty" });
    expect(await nextError(room)).toEqual({ code: "bad-field", message: "path: must not be empty" });
    expect(stored()).toEqual([]);
  });

  test.each(["overloaded", "too-fast"])("rejected as %s is sent again after a pause", async (code) => {
    const [room, session] = await enter();
    room.pageView("/a");
    const [first] = await session.receive(1);
    session.send({ type: "error", ref: 1, code, message: "" });
    await new Promise((resolve) => setTimeout(resolve, 100));
    room.pageView("/b"); // waits as well
    expect(session.received).toHaveLength(1);
    const [, a, b] = await session.receive(3);
    expect([a, b]).toMatchObject([
      { ref: 2, id: first!.id },
      { ref: 3, path: "/b" },
    ]);
  });

  test("with texts over the limits is cut at a character boundary", async () => {
    const [room, session] = await enter();
    const long = "あ".repeat(2_000);
    room.pageView(`/${long}`, { title: `${"x".repeat(1_022)}😀`, referrer: `https://example.org/${long}` });
    const [{ path, title, referrer }] = (await session.receive(1)) as any;
    expect(path).toBe(`/${"あ".repeat(170)}`);
    expect(title).toBe("x".repeat(1_022));
    expect(Buffer.byteLength(referrer)).toBeLessThanOrEqual(1_024);
    expect(referrer).toMatch(/^https:\/\/example.org\/あ+$/);
  });

  test("is not recorded with Do Not Track; presence works", async () => {
    vi.spyOn(navigator, "doNotTrack", "get").mockReturnValue("1");
    const [room, session] = await enter();
    room.pageView("/a");
    room.watch("sunrise").play();
    room.setMood("joy");
    expect(await session.receive(1)).toEqual([{ type: "mood", mood: "joy" }]);
    expect(stored()).toEqual([]);
  });

  test("without an ack is sent by a beacon on pagehide, and stays stored", async () => {
    const [room, session] = await enter();
    room.pageView("/a");
    room.watch("sunrise").play();
    await session.receive(2);
    dispatchEvent(pageEvent("pagehide", false));
    expect(beacons).toMatchObject([
      [`${hub.address}/page-view`, [{ path: "/a", room: "lobby", visitor: "ann" }]],
      [
        `${hub.address}/watch-session`,
        [{ content: "sunrise", state: "paused", room: "lobby", visitor: "ann" }],
      ],
    ]);
    expect(stored()).toHaveLength(2);
  });
});

describe("a playing watch session", () => {
  test("is sent again after a reconnect, with the same id", async () => {
    const [room, session] = await enter();
    room.watch("sunrise", { durationMs: 60_000 }).play(0);
    const [first] = await session.receive(1);
    session.send({ type: "ack", upTo: 1 });
    await vi.waitFor(() => expect(stored()).toEqual([]));
    session.socket.terminate();
    const back = await hub.session(2);
    back.welcome();
    const [again] = await back.receive(1);
    expect(again).toMatchObject({
      type: "watch",
      ref: 1,
      id: first!.id,
      state: "playing",
      durationMs: 60_000,
    });
    expect(again!.watchedMs).toBeGreaterThanOrEqual(first!.watchedMs as number);
    expect(Math.abs((again!.startedAt as number) - (first!.startedAt as number))).toBeLessThanOrEqual(50);
    expect(again!.at).toBeGreaterThan(first!.at as number);
  });

  test("pauses in the back/forward cache and resumes after it", async () => {
    const [room] = await enter();
    room.watch("sunrise").play();
    dispatchEvent(pageEvent("pagehide", true));
    expect(stored()).toMatchObject([{ state: "paused" }]);
    dispatchEvent(pageEvent("pageshow", true));
    const back = await hub.session(2);
    back.welcome();
    expect((await back.receive(1))[0]).toMatchObject({ state: "playing" });
  });

  test("is paused by leave()", async () => {
    const [room, session] = await enter();
    room.watch("sunrise").play();
    room.leave();
    expect((await session.receive(2)).map(({ state }) => state)).toEqual(["playing", "paused"]);
  });
});
