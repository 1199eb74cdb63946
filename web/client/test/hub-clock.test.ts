import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createClock, type HubClock } from "../src/hub-clock.js";

const HUB = 1_800_000_000_000;

let time = 0;
beforeEach(() => {
  time = 5_000;
  vi.spyOn(performance, "now").mockImplementation(() => time);
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** The hub's clock starts at HUB, and runs as the monotonic clock. */
const hubTime = (): number => HUB + time;

/** Takes an answer that took `there` and `back` ms. */
function answer(clock: HubClock, there: number, back: number, by = hubTime): void {
  const sentAt = time;
  time += there;
  const serverTime = by();
  time += back;
  clock.sample(serverTime, sentAt);
}

const errorOf = (clock: HubClock): number => Math.abs(clock.now() - hubTime());

test("before the first sample the clock is the device's", () => {
  expect(Math.abs(createClock().now() - Date.now())).toBeLessThan(1_000);
});

test("the sample with the shortest round trip counts, whatever the order", () => {
  const [slow, fast] = [createClock(), createClock()];
  answer(slow, 400, 0);
  answer(slow, 5, 5);
  time += 60_000;
  expect(errorOf(slow)).toBeLessThan(5);
  answer(fast, 5, 5);
  answer(fast, 0, 400);
  time += 60_000;
  expect(errorOf(fast)).toBeLessThan(5);
});

test("a correction is spread over time: at most 50 ms a second, and no step back", () => {
  const clock = createClock();
  answer(clock, 1_000, 0); // half a second ahead
  const before = errorOf(clock);
  expect(before).toBeCloseTo(500);
  answer(clock, 0, 2);
  let [last, left] = [clock.now(), errorOf(clock)];
  for (let second = 0; second < 12; second++) {
    time += 1_000;
    const now = clock.now();
    expect(now - last).toBeGreaterThanOrEqual(950 - 1e-6);
    expect(left - errorOf(clock)).toBeLessThanOrEqual(50 + 1e-6);
    [last, left] = [now, errorOf(clock)];
  }
  expect(left).toBeLessThan(2);
});

test("a large difference is spread too, and after a sleep the next sample steps the clock", () => {
  const clock = createClock();
  answer(clock, 5, 5);
  const later = (): number => hubTime() + 3_600_000;
  answer(clock, 5, 5, later);
  expect(errorOf(clock)).toBeLessThan(10);
  clock.wake();
  answer(clock, 5, 5, later);
  expect(Math.abs(clock.now() - later())).toBeLessThan(10);
});

test("an old sample gives way to a newer one that is a little slower", () => {
  const clock = createClock();
  answer(clock, 1, 1);
  time += 3_600_000;
  answer(clock, 20, 20, () => hubTime() + 40); // drift
  time += 10_000;
  expect(errorOf(clock)).toBeGreaterThan(30);
});

test("two devices with clocks 20 minutes apart agree within 50 ms", () => {
  const now = vi.spyOn(Date, "now");
  now.mockReturnValue(HUB + 600_000);
  const ahead = createClock();
  answer(ahead, 30, 30);
  const hereAhead = ahead.now() - hubTime();
  now.mockReturnValue(HUB - 600_000);
  const behind = createClock();
  answer(behind, 5, 60);
  expect(Math.abs(hereAhead - (behind.now() - hubTime()))).toBeLessThan(50);
});
