import { describe, expect, test } from "vitest";
import { delay } from "../src/backoff.js";

const longest = (code: number, tries: number) => delay(code, tries, () => 1);
const shortest = (code: number, tries: number) => delay(code, tries, () => 0);

describe("the wait before the next try", () => {
  test("is any moment up to a limit that doubles, and ends at 30 s", () => {
    expect([0, 1, 2, 3, 6, 9, 2_000].map((tries) => longest(1006, tries))).toEqual([
      500, 1_000, 2_000, 4_000, 30_000, 30_000, 30_000,
    ]);
    expect([0, 5, 2_000].map((tries) => shortest(1006, tries))).toEqual([0, 0, 0]);
  });

  test("is spread over 5 s when the hub restarts, whatever was tried before", () => {
    expect([0, 9].map((tries) => longest(1012, tries))).toEqual([5_000, 5_000]);
    expect(shortest(1012, 9)).toBe(0);
  });

  test("is longer when the hub is overloaded", () => {
    expect(shortest(1013, 0)).toBe(30_000);
    expect(longest(1013, 0)).toBe(60_000);
  });

  test("never ends where the hub does not want us", () => {
    expect(delay(1008, 0)).toBeUndefined();
  });

  test("is random by itself", () => {
    const waits = Array.from({ length: 200 }, () => delay(1006, 3)!);
    expect(Math.min(...waits)).toBeLessThan(1_000);
    expect(Math.max(...waits)).toBeGreaterThan(3_000);
  });
});
