// Outages between browser and hub, and the reconnect.

import type { Browser, Page } from "playwright-core";
import { afterEach, beforeAll, afterAll, beforeEach, expect, test } from "vitest";
import { UNREACHABLE, User, launch } from "./support/user";
import { eventually } from "./support/eventually";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room-page";
import { EmbeddingSite, expectPresent, pageView } from "./support/embedding-site";
import { TcpProxy } from "./support/tcp-proxy";

let browser: Browser;
let hub: Hub;
let proxy: TcpProxy;
let site: EmbeddingSite;
let ann: User;
let bob: User;

beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());
beforeEach(async () => {
  // No periodic flush, so that a killed hub loses its pending events.
  hub = await Hub.start({ FLUSH_INTERVAL: "1h" });
  proxy = await TcpProxy.start(hub.port);
  site = await EmbeddingSite.start(proxy.url);
  [ann, bob] = await Promise.all([User.create(browser), User.create(browser)]);
});
afterEach(async () => {
  await Promise.all([ann.close(UNREACHABLE), bob.close(UNREACHABLE)]);
  site.close();
  proxy.close();
  await hub.dispose();
});

/** Flushes and returns the paths of all stored page views. */
async function storedViews(): Promise<string[]> {
  await hub.flush();
  return hub.rows<{ path: string }>("SELECT path FROM page_views ORDER BY path").map(({ path }) => path);
}

async function pageViews(page: Page, paths: string[]): Promise<void> {
  for (const path of paths) await pageView(page, path);
}

test("killed and restarted hub: clients reconnect, and each event is stored once", async () => {
  const annPage = await RoomPage.open(ann, hub.url);
  const bobPage = await site.visit(bob);
  await Promise.all([annPage.expectPresent(2), expectPresent(bobPage, 2)]);
  await pageViews(bobPage, ["/before/1", "/before/2"]);
  await hub.kill();
  await annPage.expectState("Connection lost.");
  await annPage.expectPresent("–");
  await bobPage.locator("[data-breathing-room=present]").filter({ hasText: /^$/ }).waitFor({ state: "attached" });
  await pageViews(bobPage, ["/during/1", "/during/2", "/during/3"]);
  await hub.start();
  await Promise.all([annPage.expectPresent(2), expectPresent(bobPage, 2)]);
  await pageViews(bobPage, ["/after/1"]);
  const all = ["/after/1", "/before/1", "/before/2", "/during/1", "/during/2", "/during/3", "/room/lobby"];
  await eventually(async () => expect(await storedViews()).toEqual(all));
  await annPage.expectNoStaleCounts();
  expect(await hub.get("/live-activity")).toMatchObject({ liveUsers: 2, sessions: 2 });
});

test("offline for longer than the grace: the visitor leaves and rejoins, and each event is stored once", async () => {
  const annPage = await RoomPage.open(ann, hub.url);
  const bobPage = await site.visit(bob);
  await Promise.all([annPage.expectPresent(2), expectPresent(bobPage, 2)]);
  await annPage.shownCounts();
  proxy.cut();
  await bob.context.setOffline(true);
  await pageViews(bobPage, ["/offline/1", "/offline/2"]);
  await annPage.expectPresent(1);
  proxy.restore();
  await bob.context.setOffline(false);
  await Promise.all([annPage.expectPresent(2), expectPresent(bobPage, 2)]);
  await eventually(async () => expect(await storedViews()).toEqual(["/offline/1", "/offline/2", "/room/lobby"]));
  expect(await annPage.shownCounts()).toEqual(["2", "1", "2"]);
});

test("offline page shows its state and no counts", async () => {
  const annPage = await RoomPage.open(ann, proxy.url);
  const bobPage = await RoomPage.open(bob, hub.url);
  await annPage.expectPresent(2);
  proxy.cut();
  await ann.context.setOffline(true);
  await annPage.expectState("You are offline.");
  await annPage.expectPresent("–");
  await bobPage.expectPresent(1);
  proxy.restore();
  await ann.context.setOffline(false);
  await Promise.all([annPage.expectPresent(2), bobPage.expectPresent(2)]);
  await annPage.expectNoStaleCounts();
});

test("page rejoins after the back/forward cache", async () => {
  const annPage = await RoomPage.open(ann, hub.url);
  const { page } = await RoomPage.open(bob, hub.url);
  await annPage.expectPresent(2);
  await page.evaluate(() => {
    addEventListener("pageshow", ({ persisted }) => persisted && document.body.setAttribute("data-restored", ""));
  });
  await page.goto(`${site.url}/elsewhere`);
  await annPage.expectPresent(1);
  await page.evaluate(() => history.back());
  await annPage.expectPresent(2);
  await page.locator("body[data-restored] #present").filter({ hasText: /^2$/ }).waitFor();
});

test("events made while the hub is away: one that it refuses blocks none, and a text that is too long is cut", async () => {
  const carol = await User.create(browser);
  const carolPage = await site.visit(carol);
  await expectPresent(carolPage, 1);
  await hub.kill();
  await carolPage.evaluate((hub) => {
    const other = BreathingRoom.joinRoom({ hub, room: "garden" });
    const { now } = Date;
    Date.now = () => now() - 8 * 86_400_000;
    BreathingRoom.room.pageView("/too-old");
    other.pageView("/garden/too-old");
    Date.now = now;
    BreathingRoom.room.pageView(`/${encodeURIComponent("あ".repeat(57))}`);
    other.pageView("/garden/new");
    // The next page posts what is left of a room that it is not in.
    location.reload();
  }, proxy.url);
  await hub.start();
  await expectPresent(carolPage, 1);
  const long = `/${encodeURIComponent("あ".repeat(57))}`.slice(0, 512);
  await eventually(async () => expect(await storedViews()).toEqual([long, "/garden/new"]));
  await carol.close(new RegExp(`${UNREACHABLE.source}|status of 400`));
});
