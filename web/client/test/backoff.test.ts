import { afterEach, describe, expect, test, vi } from "vitest";
import { delay, requestedWait } from "../src/backoff.js";

afterEach(() => {
  vi.restoreAllMocks();
});

/** Returns what `get` returns if chance gives `random`. */
function by<T>(random: number, get: () => T): T {
  vi.spyOn(Math, "random").mockReturnValue(random);
  return get();
}

describe("reconnect delay", () => {
  test("has full jitter and a limit that doubles up to 30 s", () => {
    expect(by(1, () => [0, 1, 2, 3, 6, 9, 2_000].map(delay))).toEqual([
      500, 1_000, 2_000, 4_000, 30_000, 30_000, 30_000,
    ]);
    expect(by(0, () => [0, 5, 2_000].map(delay))).toEqual([0, 0, 0]);
  });

  test("differs from time to time", () => {
    const waits = Array.from({ length: 200 }, () => delay(3));
    expect(Math.min(...waits)).toBeLessThan(1_000);
    expect(Math.max(...waits)).toBeGreaterThan(3_000);
  });
});

describe("the wait that a close code asks for", () => {
  test("is up to 5 s after a restart (1012)", () => {
    expect([by(0, () => requestedWait(1012)), by(1, () => requestedWait(1012))]).toEqual([0, 5_000]);
  });

  test("is 30 to 60 s after an overload (1013)", () => {
    expect([by(0, () => requestedWait(1013)), by(1, () => requestedWait(1013))]).toEqual([30_000, 60_000]);
  });

  test("is none after other codes", () => {
    expect(by(1, () => [1000, 1006, 1008, 1011].map(requestedWait))).toEqual([0, 0, 0, 0]);
  });
});
