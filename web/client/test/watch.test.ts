import { expect, test, vi } from "vitest";
import { createWatch, type WatchSession } from "../src/watch.js";

/** A watch session and its reported events. */
function session() {
  const reports: any[] = [];
  const playing = new Set<WatchSession>();
  const watch = createWatch(
    "sunrise",
    {},
    { playing, report: (id, fields) => reports.push({ id, ...fields }) },
  );
  return { watch, reports, playing };
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test("each change is reported once", () => {
  const { watch, reports } = session();
  watch.pause();
  watch.end();
  watch.seek(5);
  expect(reports).toEqual([]);
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
  expect(reports.map(({ state, positionMs }) => [state, positionMs])).toEqual([
    ["playing", 1_000],
    ["playing", 30_000],
    ["paused", 31_000],
    ["playing", 40_000],
    ["ended", 40_000],
  ]);
});

test("states reported in the same millisecond have increasing times", () => {
  const { watch, reports } = session();
  for (let n = 0; n < 50; n++) {
    watch.play();
    watch.pause();
  }
  const times = reports.map(({ at }) => at);
  expect(new Set(times).size).toBe(100);
  expect([...times].sort((a, b) => a - b)).toEqual(times);
});

test("watched time excludes pauses", async () => {
  const { watch, reports } = session();
  await sleep(30);
  watch.play();
  await sleep(60);
  watch.pause();
  const { watchedMs } = watch;
  await sleep(30);
  expect(watch.watchedMs).toBe(watchedMs);
  expect(watchedMs).toBeGreaterThanOrEqual(55);
  watch.play();
  watch.end();
  const last = reports.at(-1);
  expect(last.watchedMs).toBeGreaterThanOrEqual(watchedMs);
  expect(last.watchedMs).toBeLessThanOrEqual(last.at - last.startedAt + 1);
});

test("play after end starts a new watch session", () => {
  const { watch, reports } = session();
  watch.play();
  watch.end();
  watch.play();
  expect(reports[0].id).toBe(reports[1].id);
  expect(reports[2].id).not.toBe(reports[1].id);
  expect(reports[2].watchedMs).toBe(0);
});

test("paused session resumes with the page, unless its media does not play", () => {
  const { watch, reports, playing } = session();
  const media = Object.assign(new EventTarget(), { paused: true, readyState: 0, HAVE_FUTURE_DATA: 3, currentTime: 7 });
  watch.play();
  watch.pause();
  watch.resume();
  expect(playing.size).toBe(1);
  watch.pause();
  watch.attach(media as HTMLMediaElement);
  watch.resume();
  expect(playing.size).toBe(0);
  expect(reports.map(({ state }) => state)).toEqual(["playing", "paused", "playing", "paused"]);
});

test("attach without a media element is a clear error", () => {
  expect(() => session().watch.attach(null as never)).toThrow("attach: no media element");
});

test("watched time does not follow changes of the device's clock", () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  try {
    const { watch } = session();
    watch.play();
    vi.setSystemTime(Date.now() + 3_600_000);
    expect(watch.watchedMs).toBeLessThan(60_000);
  } finally {
    vi.useRealTimers();
  }
});

test("position that is not a number is omitted", () => {
  const { watch, reports } = session();
  watch.play(Number.NaN);
  expect(reports[0].positionMs).toBeUndefined();
});
