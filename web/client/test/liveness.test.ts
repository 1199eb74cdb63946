// @vitest-environment happy-dom

import { describe, expect, test, vi } from "vitest";
import { enter, errorsOf, hub, join, next, pageEvent, setHidden, useHub, waitForState } from "./support.js";

useHub();

/** Enters with clocks and checks that the test moves. Sockets and other timers are real. */
async function enterWithClock(welcome: object = {}) {
  vi.useFakeTimers({ toFake: ["Date", "performance", "setInterval", "clearInterval"] });
  const entered = await enter({}, welcome);
  return entered;
}

const seconds = (count: number): void => void vi.advanceTimersByTime(count * 1_000);

describe("in a quiet room", () => {
  test("a ping asks after a minute, and its answer keeps the state open", async () => {
    const [room, session] = await enterWithClock();
    const states: string[] = [];
    room.addEventListener("state", () => states.push(room.state));
    seconds(59);
    expect(room.countsAge).toBe(59_000);
    seconds(1);
    await session.ping(1);
    await vi.waitFor(() => expect(room.countsAge).toBeLessThan(10_000));
    seconds(10);
    expect([room.state, states]).toEqual(["open", []]);
  });

  test("the hub says when", async () => {
    const [, session] = await enterWithClock({ pingAfterMs: 5_000 });
    seconds(5);
    await session.ping(1);
  });

  test("any message is a sign of life, and is no reason to ask", async () => {
    const [room, session] = await enterWithClock();
    for (let n = 0; n < 3; n++) {
      seconds(50);
      session.send({ type: "presence", present: n, moods: {} });
      await next(room, "presence");
    }
    for (const message of [{ type: "ack", upTo: 0 }, { type: "keepalive" }]) {
      seconds(50);
      session.send(message);
      await vi.waitFor(() => expect(room.countsAge).toBeLessThan(10_000));
    }
    expect([session.pings, room.present]).toEqual([0, 2]);
  });

  test("without an answer the counts are dimmed within 65 s, and a new socket takes over", async () => {
    const [room, session] = await enterWithClock();
    session.answer = undefined;
    seconds(61);
    expect(room).toMatchObject({ state: "checking", present: 3, moods: { calm: 1 } });
    expect(room.countsAge).toBe(61_000);
    seconds(3);
    expect(room).toMatchObject({ state: "connecting", present: 0 });
    expect(await session.closed).toBe(4000);
    (await hub.session(2)).welcome();
    await waitForState(room, "open");
    expect(room.present).toBe(3);
  });

  test("an older hub's error is an answer, and no error of the app", async () => {
    vi.useFakeTimers({ toFake: ["Date", "performance", "setInterval", "clearInterval"] });
    const room = join();
    const errors = errorsOf(room);
    const session = await hub.session(1);
    session.answer = () => ({ type: "error", code: "unknown-type", message: "type: unknown" });
    session.oldWelcome();
    await waitForState(room, "open");
    seconds(60);
    await session.ping(1);
    await vi.waitFor(() => expect(room.countsAge).toBeLessThan(10_000));
    seconds(10);
    expect([room.state, errors]).toEqual(["open", []]);
  });
});

test("a ping that came too fast is not taken for the next one that is answered", async () => {
  const [room, session] = await enterWithClock();
  session.answer = () => ({ type: "error", code: "too-fast", message: "" });
  seconds(60);
  await session.ping(1);
  await vi.waitFor(() => expect(room.countsAge).toBeLessThan(10_000));
  const ahead = 3_600_000; // the device slept
  session.answer = () => ({ type: "pong", serverTime: Date.now() + ahead });
  vi.setSystemTime(Date.now() + 6_500);
  dispatchEvent(new Event("online"));
  await session.ping(2);
  await waitForState(room, "open");
  expect(Math.abs(room.hubNow() - Date.now() - ahead)).toBeLessThan(1_000);
});

test("the hub's clock does not step in a page that was awake", async () => {
  const [room, session] = await enterWithClock();
  const before = room.hubNow() - Date.now();
  session.answer = () => ({ type: "pong", serverTime: Date.now() + 3_600_000 });
  for (const wake of [() => dispatchEvent(new Event("online")), () => document.dispatchEvent(new Event("visibilitychange"))]) {
    wake();
    await waitForState(room, "open");
    seconds(5);
  }
  await session.ping(2);
  expect(room.hubNow() - Date.now() - before).toBeLessThan(50 * 12);
});

test("in a busy room the clock is compared every ten minutes, after a message", async () => {
  const [room, session] = await enterWithClock();
  for (let passed = 50; passed < 600; passed += 50) {
    seconds(50);
    session.send({ type: "presence", present: passed, moods: {} });
    await next(room, "presence");
    expect(session.pings).toBe(0);
  }
  seconds(50);
  expect(session.pings).toBe(0);
  session.send({ type: "presence", present: 600, moods: {} });
  await session.ping(1);
});

describe("a wake", () => {
  test.each([
    ["visibilitychange", () => document.dispatchEvent(new Event("visibilitychange"))],
    ["resume", () => document.dispatchEvent(new Event("resume"))],
    ["pageshow", () => dispatchEvent(pageEvent("pageshow", true))],
    ["online", () => dispatchEvent(new Event("online"))],
  ])("by %s asks at once, and the state is checking until the answer", async (_, wake) => {
    const [room, session] = await enterWithClock();
    wake();
    wake(); // asks once
    expect(room).toMatchObject({ state: "checking", present: 3 });
    await waitForState(room, "open");
    expect(session.pings).toBe(1);
  });

  test("is not the end of a page's load", async () => {
    const [room] = await enterWithClock();
    dispatchEvent(pageEvent("pageshow", false));
    expect(room.state).toBe("open");
  });

  test("by a late timer asks at once: the device slept", async () => {
    const [room, session] = await enterWithClock();
    vi.setSystemTime(Date.now() + 7_000); // the monotonic clock stood still
    seconds(1);
    expect(room.state).toBe("checking");
    expect(room.countsAge).toBeGreaterThanOrEqual(8_000);
    await session.ping(1);
  });

  test("on a dead path reconnects within 5 s", async () => {
    const [room, session] = await enterWithClock();
    session.answer = undefined;
    document.dispatchEvent(new Event("resume"));
    expect(room.state).toBe("checking");
    seconds(4);
    expect(room.state).toBe("connecting");
    expect(await session.closed).toBe(4000);
  });

  test("is not answered by a message that waited in the browser", async () => {
    const [room, session] = await enterWithClock();
    session.answer = undefined;
    document.dispatchEvent(new Event("resume"));
    session.send({ type: "presence", present: 9, moods: {} });
    await next(room, "presence");
    expect(room).toMatchObject({ state: "checking", present: 9 });
    seconds(1);
    session.send({ type: "presence", present: 8, moods: {} });
    await waitForState(room, "open");
  });

  test("long after a ping was sent asks again, instead of giving up", async () => {
    const [room, session] = await enterWithClock();
    session.answer = undefined;
    seconds(60);
    vi.setSystemTime(Date.now() + 180_000); // frozen for three minutes
    seconds(1);
    expect(room.state).toBe("checking");
    await session.ping(2);
    session.send({ type: "pong", serverTime: Date.now() });
    await waitForState(room, "open");
  });
});

test("a hidden page sends no pings, and asks when it is visible", async () => {
  const [room, session] = await enterWithClock();
  setHidden(true);
  dispatchEvent(new Event("online"));
  seconds(600);
  expect(room.state).toBe("open");
  setHidden(false);
  expect(room.state).toBe("checking");
  await session.ping(1);
  expect(session.pings).toBe(1);
});

describe("a page that is hidden for long", () => {
  /** Enters with timers that the test moves. */
  async function enterWithTimers(options = {}) {
    const [room, session] = await enter(options);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    return [room, session] as const;
  }

  test("leaves with 1000, and comes back when it is visible", async () => {
    const [room, session] = await enterWithTimers();
    setHidden(true);
    vi.advanceTimersByTime(29 * 60_000);
    expect(room.state).toBe("open");
    vi.advanceTimersByTime(60_000);
    expect(room).toMatchObject({ state: "waiting", present: 0 });
    expect(await session.closed).toBe(1000);
    for (const type of ["offline", "online"]) dispatchEvent(new Event(type));
    expect(room.state).toBe("waiting");
    setHidden(false);
    expect(room.state).toBe("connecting");
    (await hub.session(2)).welcome();
    await waitForState(room, "open");
    expect(hub.sessions).toHaveLength(2);
  });

  test("keeps a new token for the time when it is visible", async () => {
    const [room, session] = await enterWithTimers({ token: "first" });
    setHidden(true);
    vi.advanceTimersByTime(30 * 60_000);
    await session.closed;
    room.setToken("second");
    expect(room.state).toBe("waiting");
    setHidden(false);
    expect((await hub.session(2)).protocols).toContain("bearer.second");
    expect(hub.sessions).toHaveLength(2);
  });

  test("leaves after the time of the option", async () => {
    const [room] = await enterWithTimers({ idleAfter: 1_000 });
    setHidden(true);
    vi.advanceTimersByTime(1_000);
    expect(room.state).toBe("waiting");
  });

  test("stays while something plays", async () => {
    const [room] = await enterWithTimers();
    const watch = room.watch("sunrise");
    watch.play();
    setHidden(true);
    vi.advanceTimersByTime(3 * 3_600_000);
    expect(room.state).toBe("open");
    watch.pause();
    vi.advanceTimersByTime(30 * 60_000);
    expect(room.state).toBe("waiting");
  });

  test.each([
    ["that the hub has confirmed", "sit"],
    ["of another device", "own-sit"],
  ])("stays during a sit %s", async (_, type) => {
    const [room, session] = await enterWithTimers();
    if (type === "sit") room.sit({ minutes: 600 });
    session.send({ type, until: Date.now() + 600 * 60_000 });
    await vi.waitFor(() => expect(room.currentSit?.confirmed).toBe(true));
    setHidden(true);
    vi.advanceTimersByTime(3 * 3_600_000);
    expect(room.state).toBe("open");
    room.currentSit!.end();
    vi.advanceTimersByTime(30 * 60_000);
    expect(room.state).toBe("waiting");
    expect(await session.closed).toBe(1000);
  });

  test("stays closed if the hub has closed it for good", async () => {
    const [room, session] = await enterWithTimers();
    session.socket.close(1008, "rate-limit");
    await waitForState(room, "closed");
    setHidden(true);
    vi.advanceTimersByTime(30 * 60_000);
    setHidden(false);
    expect(room.state).toBe("closed");
    expect(hub.sessions).toHaveLength(1);
  });

  test("stays if it is visible in between", async () => {
    const [room] = await enterWithTimers();
    setHidden(true);
    vi.advanceTimersByTime(29 * 60_000);
    setHidden(false);
    setHidden(true);
    vi.advanceTimersByTime(29 * 60_000);
    expect(room.state).not.toBe("waiting");
  });
});
