// @vitest-environment happy-dom

import { expect, test, vi } from "vitest";
import type { Sit } from "../src/index.js";
import { enter, errorsOf, hub, join, next, reconnect, useHub, waitForState } from "./support.js";

useHub();

const MINUTE = 60_000;

/** Waits for the end of a sit, and returns why. */
async function reasonOf(sit: Sit): Promise<string> {
  return (await next<CustomEvent<{ reason: string }>>(sit, "end")).detail.reason;
}

test("a sit is sent, and follows the hub's end", async () => {
  const [room, session] = await enter();
  const changed = next(room, "sit");
  const sit = room.sit({ minutes: 20 });
  await changed;
  expect(room.currentSit).toBe(sit);
  expect(Math.abs(sit.remaining - 20 * MINUTE)).toBeLessThan(MINUTE);
  const [message] = await session.receive(1);
  expect(message!.type).toBe("sit");
  expect(Math.abs((message!.forMs as number) - 20 * MINUTE)).toBeLessThan(MINUTE);
  const until = Date.now() + 10 * MINUTE; // the hub's limit
  session.send({ type: "sit", until });
  await next(sit, "change");
  expect(sit.until).toBe(until);
  expect(sit.remaining).toBeLessThan(10 * MINUTE + 1_000); // the clocks differ by some ms
});

test("end() ends it at the hub too", async () => {
  const [room, session] = await enter();
  const sit = room.sit({ minutes: 20 });
  const reason = reasonOf(sit);
  sit.end();
  sit.end();
  expect(await reason).toBe("ended");
  expect([sit.remaining, room.currentSit]).toEqual([0, null]);
  expect((await session.receive(2))[1]).toEqual({ type: "sit", forMs: 0 });
  expect(session.received).toHaveLength(2);
});

test("a sit completes at its end by the hub's clock", async () => {
  const [room, session] = await enter();
  const sit = room.sit({ minutes: 20 });
  await session.receive(1);
  session.send({ type: "sit", until: Date.now() + 50 });
  expect(await reasonOf(sit)).toBe("completed");
  expect(room.currentSit).toBeNull();
  expect(session.received).toHaveLength(1);
});

test("a sit that began before a reload is in the welcome", async () => {
  const until = Date.now() + 7 * MINUTE;
  const [room, session] = await enter({}, { sit: until });
  expect(room.currentSit!.until).toBe(until);
  room.currentSit!.end();
  expect(await session.receive(1)).toEqual([{ type: "sit", forMs: 0 }]);
});

test("a confirmed sit goes on after a reconnect, with the same handle, and is not sent again", async () => {
  const [room, session] = await enter();
  const sit = room.sit({ minutes: 20 });
  await session.receive(1);
  session.send({ type: "sit", until: Date.now() + 20 * MINUTE });
  await next(sit, "change");
  const until = Date.now() + 15 * MINUTE; // another tab has set it
  const back = await reconnect(room, { sit: until });
  expect(room.currentSit).toBe(sit);
  expect(sit.until).toBe(until);
  room.setMood("joy");
  expect(await back.receive(1)).toEqual([{ type: "mood", mood: "joy" }]);
});

test("a sit that the hub did not confirm is sent again", async () => {
  const [room, session] = await enter();
  const sit = room.sit({ minutes: 20 });
  await session.receive(1);
  const back = await reconnect(room);
  expect(await back.receive(1)).toMatchObject([{ type: "sit" }]);
  expect(room.currentSit).toBe(sit);
});

test("a sit that begins or ends without a connection is sent after the welcome", async () => {
  const room = join();
  const sit = room.sit({ minutes: 20 });
  const session = await hub.session(1);
  session.welcome();
  expect((await session.receive(1))[0]).toMatchObject({ type: "sit" });
  session.send({ type: "sit", until: sit.until });
  session.socket.terminate();
  await waitForState(room, "waiting");
  sit.end();
  const back = await hub.session(2);
  back.welcome({ sit: sit.until });
  expect(await back.receive(1)).toEqual([{ type: "sit", forMs: 0 }]);
  expect(room.currentSit).toBeNull();
});

test("a sit that begins before the hub's time is known keeps its length", async () => {
  const room = join();
  const sit = room.sit({ minutes: 20 });
  const session = await hub.session(1);
  session.welcome({ serverTime: Date.now() - 60 * MINUTE }); // the device's clock is fast
  const [message] = await session.receive(1);
  expect(Math.abs((message!.forMs as number) - 20 * MINUTE)).toBeLessThan(MINUTE);
  expect(Math.abs(sit.until - room.hubNow() - 20 * MINUTE)).toBeLessThan(MINUTE);
});

test("a sit that the hub rejects as bad is refused, and an event is not", async () => {
  const [room, session] = await enter();
  const sit = room.sit({ minutes: 20 });
  room.pageView("/a");
  await session.receive(2);
  session.send({ type: "error", code: "bad-field", message: "path", ref: 1 });
  await next(room, "error");
  expect(room.currentSit).toBe(sit);
  const reason = reasonOf(sit);
  session.send({ type: "error", code: "bad-field", message: "forMs" });
  expect(await reason).toBe("refused");
});

test("a sit that another tab has ended is ended after a reconnect", async () => {
  const [room] = await enter({}, { sit: Date.now() + 20 * MINUTE });
  const reason = reasonOf(room.currentSit!);
  await reconnect(room);
  expect(await reason).toBe("ended");
});

test("a new sit replaces the running one, and only the last answer counts", async () => {
  const [room, session] = await enter();
  const first = room.sit({ minutes: 20 });
  const reason = reasonOf(first);
  const second = room.sit({ minutes: 5 });
  expect(await reason).toBe("ended");
  await session.receive(2);
  session.send({ type: "sit", until: Date.now() + 20 * MINUTE });
  session.send({ type: "sit", until: Date.now() + 3 * MINUTE });
  await next(second, "change");
  expect(room.currentSit).toBe(second);
  expect(second.remaining).toBeLessThan(4 * MINUTE);
});

test("a sit that the hub refuses ends, with an error", async () => {
  const [room, session] = await enter();
  const errors = errorsOf(room);
  const sit = room.sit({ minutes: 20 });
  const reason = reasonOf(sit);
  await session.receive(1);
  session.send({ type: "error", code: "sit-refused", message: "the room is full" });
  expect(await reason).toBe("refused");
  expect(errors).toEqual([{ code: "sit-refused", message: "the room is full" }]);
  expect(room.currentSit).toBeNull();
  room.setMood("joy");
  expect((await session.receive(2))[1]).toMatchObject({ type: "mood" });
});

test("a hub without sits refuses them", async () => {
  const room = join();
  const errors = errorsOf(room);
  const session = await hub.session(1);
  session.oldWelcome();
  await waitForState(room, "open");
  const sit = room.sit({ minutes: 20 });
  const reason = reasonOf(sit);
  await session.receive(1);
  session.send({ type: "error", code: "unknown-type", message: "type: sit" });
  expect(await reason).toBe("refused");
  expect(errors).toMatchObject([{ code: "sit-refused" }]);
});

test("a sit that came too fast is sent again after a pause", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  const [room, session] = await enter();
  room.sit({ minutes: 20 });
  await session.receive(1);
  session.send({ type: "error", code: "too-fast", message: "" });
  expect((await session.receive(2))[1]).toMatchObject({ type: "sit" });
});

test("a sit is confirmed by the hub's answer, and not by the connection", async () => {
  const room = join();
  const sit = room.sit({ minutes: 20 });
  const session = await hub.session(1);
  session.welcome();
  await session.receive(1);
  expect(sit.confirmed).toBe(false);
  session.send({ type: "sit", until: sit.until });
  await next(sit, "change");
  expect(sit.confirmed).toBe(true);
  session.socket.terminate();
  await waitForState(room, "waiting");
  expect(sit.confirmed).toBe(true);
  expect(room.sit({ minutes: 5 }).confirmed).toBe(false);
});

test("a sit of the visitor's phone is shown here, moves and ends, and nothing is sent", async () => {
  const [room, session] = await enter();
  expect(session.path).toContain("own-sit");
  const until = Date.now() + 20 * MINUTE;
  session.send({ type: "own-sit", until });
  await next(room, "sit");
  const sit = room.currentSit!;
  expect([sit.until, sit.confirmed]).toEqual([until, true]);
  session.send({ type: "own-sit", until: until + MINUTE });
  await next(sit, "change");
  expect(sit.until).toBe(until + MINUTE);
  const reason = reasonOf(sit);
  session.send({ type: "own-sit", until: null });
  expect(await reason).toBe("ended");
  expect(room.currentSit).toBeNull();
  room.setMood("joy");
  expect(await session.receive(1)).toEqual([{ type: "mood", mood: "joy" }]);
});

test("an earlier sit of another device does not replace the one that is on its way from here", async () => {
  const [room, session] = await enter();
  const sit = room.sit({ minutes: 20 });
  await session.receive(1);
  session.send({ type: "own-sit", until: null });
  session.send({ type: "own-sit", until: Date.now() + MINUTE });
  session.send({ type: "sit", until: sit.until });
  await next(sit, "change");
  expect([room.currentSit === sit, sit.confirmed, sit.remaining > 19 * MINUTE]).toEqual([true, true, true]);
});

test("a page that is frozen during a sit gives its socket up by 4000, and comes back when it resumes", async () => {
  const freeze = (): boolean => document.dispatchEvent(new Event("freeze"));
  const [room, session] = await enter({}, { sit: Date.now() + 20 * MINUTE });
  freeze();
  expect(await session.closed).toBe(4000);
  expect(room.currentSit?.confirmed).toBe(true);
  document.dispatchEvent(new Event("resume"));
  (await hub.session(2)).welcome();
  await waitForState(room, "open");
  freeze(); // the welcome has no sit
  expect(room.state).toBe("open");
});

test("leave() ends the sit", async () => {
  const [room] = await enter();
  const reason = reasonOf(room.sit({ minutes: 20 }));
  room.leave();
  expect(await reason).toBe("ended");
});

test("minutes that are no time are a clear error", async () => {
  const [room] = await enter();
  for (const minutes of [0, -1, Number.NaN]) expect(() => room.sit({ minutes })).toThrow("bad minutes");
});
