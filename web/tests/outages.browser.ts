// What goes wrong between a browser and the hub, and how everybody comes back.

import type { Browser, Page } from "playwright-core";
import { afterEach, beforeAll, afterAll, beforeEach, expect, test } from "vitest";
import { NO_HUB, Person, launch } from "./support/browser";
import { eventually } from "./support/eventually";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room";
import { Site, expectPresent, view } from "./support/site";
import { Wire } from "./support/wire";

let browser: Browser;
let hub: Hub;
let wire: Wire;
let site: Site;
let ann: Person;
let bob: Person;

beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());
beforeEach(async () => {
  // Nothing is written by itself, so that whatever is not acked is lost with the hub.
  hub = await Hub.start({ FLUSH_INTERVAL: "1h" });
  wire = await Wire.to(hub.port);
  site = await Site.of(wire.url);
  [ann, bob] = await Promise.all([Person.come(browser), Person.come(browser)]);
});
afterEach(async () => {
  await Promise.all([ann.goes(NO_HUB), bob.goes(NO_HUB)]);
  site.close();
  wire.close();
  await hub.dispose();
});

/** Flushes, and says which pages were viewed, each as often as it is stored. */
async function viewed(): Promise<string[]> {
  await hub.flush();
  return hub.rows<{ path: string }>("SELECT path FROM page_views ORDER BY path").map(({ path }) => path);
}

async function viewAll(page: Page, paths: string[]): Promise<void> {
  for (const path of paths) await view(page, path);
}

test("the hub is killed and started again: both come back, and every event is there once", async () => {
  const anns = await RoomPage.enter(ann, hub.url);
  const bobs = await site.visit(bob);
  await anns.pick("calm");
  await Promise.all([anns.expectPresent(2), expectPresent(bobs, 2), anns.expectMood("calm", 1)]);
  await viewAll(bobs, ["/before/1", "/before/2"]);
  await hub.kill();
  await anns.expectState("Connection lost.");
  await anns.expectPresent("–");
  await bobs.locator("[data-breathing-room=present]").filter({ hasText: /^$/ }).waitFor({ state: "attached" });
  await viewAll(bobs, ["/during/1", "/during/2", "/during/3"]);
  await hub.start();
  await Promise.all([anns.expectPresent(2), expectPresent(bobs, 2), anns.expectMood("calm", 1)]);
  await viewAll(bobs, ["/after/1"]);
  const all = ["/after/1", "/before/1", "/before/2", "/during/1", "/during/2", "/during/3", "/room/lobby"];
  await eventually(async () => expect(await viewed()).toEqual(all));
  await anns.expectNothingStale();
  expect(await hub.get("/live-activity")).toMatchObject({ liveUsers: 2, sessions: 2 });
});

test("offline for ten seconds: they miss each other, both come back, and every event is there once", async () => {
  const anns = await RoomPage.enter(ann, hub.url);
  const bobs = await site.visit(bob);
  await Promise.all([anns.expectPresent(2), expectPresent(bobs, 2)]);
  await anns.seen();
  wire.cut();
  await bob.context.setOffline(true);
  const tenSeconds = new Promise((resolve) => setTimeout(resolve, 10_000));
  await viewAll(bobs, ["/offline/1", "/offline/2"]);
  await anns.expectPresent(1);
  await tenSeconds;
  wire.mend();
  await bob.context.setOffline(false);
  await Promise.all([anns.expectPresent(2), expectPresent(bobs, 2)]);
  await eventually(async () => expect(await viewed()).toEqual(["/offline/1", "/offline/2", "/room/lobby"]));
  expect(await anns.seen()).toEqual(["2", "1", "2"]);
});

test("whoever is offline is told so, and sees nobody who may be gone", async () => {
  const anns = await RoomPage.enter(ann, wire.url);
  const bobs = await RoomPage.enter(bob, hub.url);
  await anns.expectPresent(2);
  wire.cut();
  await ann.context.setOffline(true);
  await anns.expectState("You are offline.");
  await anns.expectPresent("–");
  await bobs.expectPresent(1);
  wire.mend();
  await ann.context.setOffline(false);
  await Promise.all([anns.expectPresent(2), bobs.expectPresent(2)]);
  await anns.expectNothingStale();
});

test("a page that comes back from the back/forward cache is in the room again", async () => {
  const anns = await RoomPage.enter(ann, hub.url);
  const { page } = await RoomPage.enter(bob, hub.url);
  await anns.expectPresent(2);
  await page.evaluate(() => {
    addEventListener("pageshow", ({ persisted }) => persisted && document.body.setAttribute("data-thawed", ""));
  });
  await page.goto(`${site.url}/elsewhere`);
  await anns.expectPresent(1);
  await page.evaluate(() => history.back());
  await anns.expectPresent(2);
  await page.locator("body[data-thawed] #present").filter({ hasText: /^2$/ }).waitFor();
});
