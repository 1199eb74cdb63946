import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createToken, renewalDelay, type TokenSource } from "../src/token.js";

const NOW = 1_800_000_000_000;

function tokenUntil(exp: number): string {
  return `header.${Buffer.from(JSON.stringify({ sub: "ä???>>>", exp })).toString("base64url")}.signature`;
}

const inSeconds = (seconds: number): string => tokenUntil(NOW / 1_000 + seconds);
const delayOf = (seconds: number): number => renewalDelay(inSeconds(seconds), NOW);

describe("the time until a renewal", () => {
  test("is until 60 s before the expiry", () => {
    expect(delayOf(3_600)).toBe(3_540_000);
  });

  test("is half of the lifetime of a short-lived token, and at least 5 s", () => {
    expect(delayOf(90)).toBe(45_000);
    expect(delayOf(20)).toBe(10_000);
    for (const seconds of [9, 0, -3_600]) expect(delayOf(seconds)).toBe(5_000);
  });

  test("of a long-lived token may be longer than a timer", () => {
    for (const days of [25, 30, 365, 3_650]) expect(delayOf(days * 86_400)).toBe(days * 86_400_000 - 60_000);
  });

  test("is unknown without an expiry", () => {
    for (const token of ["", "opaque", "a.b.c", `a.${btoa("{}")}.c`]) expect(renewalDelay(token, NOW)).toBeNaN();
  });
});

describe("a token function", () => {
  const used: string[] = [];
  const errors: string[] = [];
  let now = Date.now;
  beforeEach(() => {
    vi.useFakeTimers({ now: NOW });
    now = Date.now;
    vi.spyOn(Math, "random").mockReturnValue(0); // the longest delays
    used.length = errors.length = 0;
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });
  const source = (get: () => string | null | Promise<string | null>): TokenSource =>
    createToken(get, () => now(), (reason) => errors.push(String(reason)));
  const use = (token: string): void => void used.push(token);

  test("that returns nothing, an old token, or fails is asked again with backoff", async () => {
    const answers = [inSeconds(3_600), null, inSeconds(3_600), "fail", inSeconds(7_200)];
    let asked = 0;
    const tokens = source(async () => {
      const answer = answers[asked++]!;
      if (answer === "fail") throw new Error("offline");
      return answer;
    });
    await tokens.get();
    tokens.keep(use);
    await vi.advanceTimersByTimeAsync(3_540_000);
    for (const [wait, calls] of [[5_000, 3], [10_000, 4], [20_000, 5]] as const) {
      expect([asked, used]).toEqual([calls - 1, []]);
      await vi.advanceTimersByTimeAsync(wait);
      expect(asked).toBe(calls);
    }
    expect(used).toEqual([answers[4]]);
    expect(errors).toEqual(["Error: offline"]);
    await vi.advanceTimersByTimeAsync(3_000_000);
    expect(asked).toBe(5);
  });

  test("that never returns a new token is asked less than 6 times in the first minute", async () => {
    let asked = 0;
    const tokens = source(() => (asked++, inSeconds(-60)));
    await tokens.get();
    tokens.keep(use);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toBeLessThan(6);
  });

  test("result is ignored if a new connection has asked since", async () => {
    const resolve: ((token: string) => void)[] = [];
    const tokens = source(() => new Promise((done) => resolve.push(done)));
    const first = tokens.get();
    resolve[0]!(inSeconds(60));
    await first;
    tokens.keep(use);
    await vi.advanceTimersByTimeAsync(30_000);
    const second = tokens.get(); // the socket was lost
    resolve[2]!(inSeconds(3_600));
    expect(await second).toBe(inSeconds(3_600));
    resolve[1]!(inSeconds(120));
    await vi.advanceTimersByTimeAsync(0);
    expect(used).toEqual([]);
    expect(tokens.current).toBe(inSeconds(3_600));
  });

  test("is asked by the hub's clock, not the device's", async () => {
    let asked = 0;
    const tokens = source(() => tokenUntil(NOW / 1_000 + 3_600 + asked++));
    await tokens.get();
    vi.setSystemTime(NOW + 3_600_000); // one hour fast
    const started = performance.now();
    now = () => NOW + performance.now() - started;
    tokens.keep(use);
    await vi.advanceTimersByTimeAsync(3_539_000);
    expect(asked).toBe(1);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(asked).toBe(2);
  });

  test("given as a string is not renewed", async () => {
    const tokens = createToken(inSeconds(20), Date.now, () => {});
    await tokens.get();
    tokens.keep(use);
    expect(vi.getTimerCount()).toBe(0);
  });
});
