// Watch sessions of a player on an embedding site.

import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { User, launch } from "./support/user";
import { eventually } from "./support/eventually";
import { Hub } from "./support/hub";
import { EmbeddingSite } from "./support/embedding-site";

let browser: Browser;
let hub: Hub;
let site: EmbeddingSite;

beforeAll(async () => {
  [browser, hub] = await Promise.all([launch(), Hub.start()]);
  site = await EmbeddingSite.start(hub.url);
});
afterAll(async () => {
  await browser.close();
  site.close();
  await hub.dispose();
});

interface Session {
  content: string;
  state: string;
  watched_ms: number;
  duration_ms: number;
  wall_ms: number;
}

test("watched time of an <audio> excludes its pause", async () => {
  const ann = await User.create(browser);
  const page = await site.visit(ann);
  const played = await page.evaluate(async () => {
    const audio = document.querySelector("audio")!;
    const next = (event: string): Promise<Event> => new Promise((done) => audio.addEventListener(event, done, { once: true }));
    BreathingRoom.room.watch("tone").attach(audio);
    const started = performance.now();
    void audio.play();
    while (audio.currentTime < 1.2) await next("timeupdate");
    audio.pause();
    await new Promise((done) => setTimeout(done, 1_500));
    void audio.play();
    await next("ended");
    return performance.now() - started;
  });
  const session = await eventually(() => {
    const sessions = hub.rows<Session>(
      "SELECT content, state, watched_ms, duration_ms, updated_at - started_at AS wall_ms FROM watch_sessions",
    );
    expect(sessions).toMatchObject([{ content: "tone", state: "ended", duration_ms: 3_000 }]);
    return sessions[0]!;
  });
  expect(played).toBeGreaterThan(4_400);
  expect(session.wall_ms).toBeGreaterThan(4_200);
  expect(session.watched_ms).toBeGreaterThan(2_700);
  expect(session.watched_ms).toBeLessThan(3_600);
  await ann.close();
});

test("live activity lists content while it plays", async () => {
  const ann = await User.create(browser);
  const page = await site.visit(ann);
  await page.evaluate(() => {
    const audio = document.querySelector("audio")!;
    audio.loop = true;
    BreathingRoom.room.watch("tone").attach(audio);
    return audio.play();
  });
  const watching = async (): Promise<unknown> => (await hub.get<{ watching: unknown }>("/live-activity")).watching;
  await eventually(async () => expect(await watching()).toEqual([{ content: "tone", count: 1 }]));
  await page.evaluate(() => document.querySelector("audio")!.pause());
  await eventually(async () => expect(await watching()).toEqual([]));
  await ann.close();
});
