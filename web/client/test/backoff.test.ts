import { describe, expect, test } from "vitest";
import { delay } from "../src/backoff.js";

const longest = (code: number, attempts: number) => delay(code, attempts, () => 1);
const shortest = (code: number, attempts: number) => delay(code, attempts, () => 0);

describe("reconnect delay", () => {
  test("has full jitter and a limit that doubles up to 30 s", () => {
    expect([0, 1, 2, 3, 6, 9, 2_000].map((attempts) => longest(1006, attempts))).toEqual([
      500, 1_000, 2_000, 4_000, 30_000, 30_000, 30_000,
    ]);
    expect([0, 5, 2_000].map((attempts) => shortest(1006, attempts))).toEqual([0, 0, 0]);
  });

  test("is up to 5 s after a restart (1012), independent of failed attempts", () => {
    expect([0, 9].map((attempts) => longest(1012, attempts))).toEqual([5_000, 5_000]);
    expect(shortest(1012, 9)).toBe(0);
  });

  test("is 30 to 60 s after an overload (1013)", () => {
    expect(shortest(1013, 0)).toBe(30_000);
    expect(longest(1013, 0)).toBe(60_000);
  });

  test("is undefined after a rejection (1008)", () => {
    expect(delay(1008, 0)).toBeUndefined();
  });

  test("uses Math.random by default", () => {
    const waits = Array.from({ length: 200 }, () => delay(1006, 3)!);
    expect(Math.min(...waits)).toBeLessThan(1_000);
    expect(Math.max(...waits)).toBeGreaterThan(3_000);
  });
});
