import { expect, test } from "vitest";
import { WatchSession } from "../src/watch.js";

/** A watch session and all that it tells. */
function session() {
  const told: any[] = [];
  const playing = new Set<WatchSession>();
  const watch = new WatchSession(
    "sunrise",
    {},
    { playing, tell: (id, fields) => told.push({ id, ...fields }) },
  );
  return { watch, told, playing };
}

const rest = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test("each change is told once", () => {
  const { watch, told } = session();
  watch.pause();
  watch.end();
  watch.seek(5);
  expect(told).toEqual([]);
  watch.play(1_000.4);
  watch.play();
  watch.seek(30_000);
  watch.pause(31_000);
  watch.pause();
  watch.seek(40_000);
  watch.play();
  watch.end();
  watch.end();
  watch.pause();
  expect(told.map(({ state, positionMs }) => [state, positionMs])).toEqual([
    ["playing", 1_000],
    ["playing", 30_000],
    ["paused", 31_000],
    ["playing", 40_000],
    ["ended", 40_000],
  ]);
});

test("of two states told in one millisecond the second is the later one", () => {
  const { watch, told } = session();
  for (let n = 0; n < 50; n++) {
    watch.play();
    watch.pause();
  }
  const times = told.map(({ at }) => at);
  expect(new Set(times).size).toBe(100);
  expect([...times].sort((a, b) => a - b)).toEqual(times);
});

test("only time that played is watched", async () => {
  const { watch, told } = session();
  await rest(30);
  watch.play();
  await rest(60);
  watch.pause();
  const { watchedMs } = watch;
  await rest(30);
  expect(watch.watchedMs).toBe(watchedMs);
  expect(watchedMs).toBeGreaterThanOrEqual(55);
  watch.play();
  watch.end();
  const last = told.at(-1);
  expect(last.watchedMs).toBeGreaterThanOrEqual(watchedMs);
  expect(last.watchedMs).toBeLessThanOrEqual(last.at - last.startedAt + 1);
});

test("playing after the end begins a new watch session", () => {
  const { watch, told } = session();
  watch.play();
  watch.end();
  watch.play();
  expect(told[0].id).toBe(told[1].id);
  expect(told[2].id).not.toBe(told[1].id);
  expect(told[2].watchedMs).toBe(0);
});

test("what was put aside goes on, what was paused does not", async () => {
  const { watch, told, playing } = session();
  watch.play();
  watch.suspend();
  const { watchedMs } = watch;
  await rest(20);
  expect(watch.watchedMs).toBe(watchedMs);
  expect(playing.size).toBe(1);
  watch.resume();
  watch.pause();
  expect(playing.size).toBe(0);
  expect(told.map(({ state }) => state)).toEqual(["playing", "paused", "playing", "paused"]);
});

test("a length or position that is no number is not told", () => {
  const { watch, told } = session();
  watch.play(Number.NaN);
  expect(told[0].positionMs).toBeUndefined();
});
