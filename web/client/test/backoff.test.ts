import { describe, expect, test } from "vitest";
import { delay, requestedWait } from "../src/backoff.js";

const most = (): number => 1;
const least = (): number => 0;

describe("reconnect delay", () => {
  test("has full jitter and a limit that doubles up to 30 s", () => {
    expect([0, 1, 2, 3, 6, 9, 2_000].map((attempts) => delay(attempts, most))).toEqual([
      500, 1_000, 2_000, 4_000, 30_000, 30_000, 30_000,
    ]);
    expect([0, 5, 2_000].map((attempts) => delay(attempts, least))).toEqual([0, 0, 0]);
  });

  test("uses Math.random by default", () => {
    const waits = Array.from({ length: 200 }, () => delay(3));
    expect(Math.min(...waits)).toBeLessThan(1_000);
    expect(Math.max(...waits)).toBeGreaterThan(3_000);
  });
});

describe("the wait that a close code asks for", () => {
  test("is up to 5 s after a restart (1012)", () => {
    expect([requestedWait(1012, least), requestedWait(1012, most)]).toEqual([0, 5_000]);
  });

  test("is 30 to 60 s after an overload (1013)", () => {
    expect([requestedWait(1013, least), requestedWait(1013, most)]).toEqual([30_000, 60_000]);
  });

  test("is none after other codes", () => {
    expect([1000, 1006, 1008, 1011].map((code) => requestedWait(code, most))).toEqual([0, 0, 0, 0]);
  });
});
