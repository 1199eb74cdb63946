import { afterEach, expect, test, vi } from "vitest";
import { WatchClock } from "../src/watch-clock.js";

afterEach(() => {
  vi.restoreAllMocks();
});

function clockAt(time: { now: number }): WatchClock {
  vi.spyOn(performance, "now").mockImplementation(() => time.now);
  return new WatchClock();
}

test("clock runs only between start and stop", () => {
  const time = { now: 1_000 };
  const clock = clockAt(time);
  expect(clock.elapsed).toBe(0);
  clock.start();
  time.now += 250;
  expect(clock.elapsed).toBe(250);
  clock.stop();
  time.now += 9_999;
  expect(clock.elapsed).toBe(250);
  clock.start();
  time.now += 50;
  expect(clock.elapsed).toBe(300);
});

test("start and stop are idempotent", () => {
  const time = { now: 0 };
  const clock = clockAt(time);
  clock.stop();
  clock.start();
  time.now += 10;
  clock.start();
  time.now += 10;
  clock.stop();
  clock.stop();
  expect(clock.elapsed).toBe(20);
});

test("wall clock changes have no effect", async () => {
  const clock = new WatchClock();
  const { now } = Date;
  clock.start();
  try {
    Date.now = () => 0;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(clock.elapsed).toBeGreaterThan(15);
    expect(clock.elapsed).toBeLessThan(2_000);
  } finally {
    Date.now = now;
  }
});
