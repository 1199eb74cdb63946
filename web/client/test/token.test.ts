import { expect, test } from "vitest";
import { renewalDelay } from "../src/token.js";

const NOW = 1_800_000_000_000;

function tokenUntil(exp: number): string {
  return `header.${Buffer.from(JSON.stringify({ sub: "ä???>>>", exp })).toString("base64url")}.signature`;
}

const inSeconds = (seconds: number): number => renewalDelay(tokenUntil(NOW / 1_000 + seconds), NOW);

test("token is renewed 60 s before its expiry", () => {
  expect(inSeconds(3_600)).toBe(3_540_000);
  expect(inSeconds(90.5)).toBe(30_500);
});

test("short-lived token is renewed at most every 5 s", () => {
  for (const seconds of [65, 60, 30, 0, -3_600]) expect(inSeconds(seconds)).toBe(5_000);
});

test("delay of a long-lived token stays below the timer limit", () => {
  for (const days of [24, 25, 30, 365, 3_650]) {
    const wait = inSeconds(days * 86_400);
    expect(wait).toBeGreaterThanOrEqual(5_000);
    expect(wait).toBeLessThan(2 ** 31);
    expect(wait).toBeLessThan(days * 86_400_000);
  }
});
