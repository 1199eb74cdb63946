// The dashboard of a real hub with a history.

import { randomUUID } from "node:crypto";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { average, count, duration } from "../app/src/dashboard/format";
import type { Health } from "../app/src/dashboard/health";
import { OTHER, withOther } from "../app/src/dashboard/ranking";
import { RANGES, type Range, type Stats, statsPath } from "../app/src/dashboard/stats";
import { UNREACHABLE, User, launch } from "./support/user";
import { eventually } from "./support/eventually";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room-page";
import { EmbeddingSite, pageView } from "./support/embedding-site";

const ZONE = "Europe/Berlin";
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

let browser: Browser;

beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());

/** Returns the cell texts of the table with this caption, row by row. */
async function rows(page: Page, caption: string): Promise<string[][]> {
  const lines = page.getByRole("table", { name: caption, exact: true }).locator("tbody tr");
  return await lines.evaluateAll((all) => all.map((row) => [...row.children].map((cell) => cell.textContent.trim())));
}

describe("now", () => {
  let hub: Hub;
  let site: EmbeddingSite;

  beforeAll(async () => {
    hub = await Hub.start({ LEAVE_GRACE: "200ms" });
    site = await EmbeddingSite.start(hub.url);
  });
  afterAll(async () => {
    site.close();
    await hub.dispose();
  });

  test("shows live activity, and no data without a connection", async () => {
    const [ann, bob, viewer] = await Promise.all([User.create(browser), User.create(browser), User.create(browser)]);
    const page = await viewer.open(hub.url);
    const people = page.locator("#live-users");
    await people.filter({ hasText: /^0$/ }).waitFor();
    await page.getByText("All rooms are empty.").waitFor();

    const annPage = await RoomPage.open(ann, hub.url, "garden");
    await annPage.pick("hope");
    const bobPage = await site.visit(bob);
    await pageView(bobPage, "/somewhere");
    await bobPage.evaluate(() => {
      BreathingRoom.room.watch("tone").attach(document.querySelector("audio")!);
      return document.querySelector("audio")!.play();
    });
    await people.filter({ hasText: /^2$/ }).waitFor();
    await expect.poll(() => rows(page, "Rooms")).toEqual([["garden", "1"], ["lobby", "1"]]);
    await expect.poll(() => rows(page, "Moods")).toEqual([["hope", "1"]]);
    await expect.poll(() => rows(page, "Pages")).toEqual([["/room/garden", "1"], ["/somewhere", "1"]]);
    await expect.poll(() => rows(page, "Being watched")).toEqual([["tone", "1"]]);
    expect(await page.getByRole("link", { name: "garden" }).getAttribute("href")).toBe(`${hub.url}/room/garden`);

    await hub.kill();
    await page.getByText("Not connected to the hub. Reconnecting…").waitFor();
    await people.filter({ hasText: /^–$/ }).waitFor();
    expect(await page.getByText("Not available without a connection.").count()).toBe(4);
    await hub.start();
    await people.filter({ hasText: /^2$/ }).waitFor();
    await Promise.all([ann.close(UNREACHABLE), bob.close(UNREACHABLE), viewer.close(UNREACHABLE)]);
  });

  test("shows the hub's health", async () => {
    const viewer = await User.create(browser);
    const page = await viewer.open(hub.url);
    await page.getByText(/The hub is healthy · .* · nothing pending/).waitFor();
    await viewer.close();
  });
});

describe("history", () => {
  let hub: Hub;
  let viewer: User;
  let page: Page;
  const posted = { views: 0, viewsInGarden: 0, watches: 0 };

  beforeAll(async () => {
    hub = await Hub.start({ LEAVE_GRACE: "0s" });
    await generate();
    await visitOnce();
    viewer = await User.create(browser, { timezoneId: ZONE });
    page = await viewer.open(hub.url);
  });
  afterAll(async () => {
    try {
      await viewer.close();
    } finally {
      await hub.dispose();
    }
  });

  /** Stores page views of the last year, denser towards now, and watch sessions of the last hours. */
  async function generate(): Promise<void> {
    const now = Date.now();
    const ages = Array.from({ length: 90 }, (_, n) => 5 * MINUTE + 330 * DAY * (n / 90) ** 4);
    const views = ages.map((age, n) => ({
      type: "page-view",
      id: randomUUID(),
      room: n % 3 === 0 ? "garden" : "lobby",
      visitor: `visitor-${n % 20}`,
      path: `/page/${n % 14}`,
      ...(n % 5 === 0 && { referrer: `https://${n % 2 ? "a" : "b"}.example/` }),
      at: Math.round(now - age),
    }));
    const watches = [0, 1, 2].map((n) => ({
      id: randomUUID(),
      room: "lobby",
      visitor: `visitor-${n}`,
      content: n === 0 ? "rain" : "sunrise",
      state: "ended",
      startedAt: now - (60 + n) * MINUTE,
      at: now - 30 * MINUTE,
      watchedMs: (10 + n) * MINUTE,
    }));
    await hub.import(views);
    await hub.post("/watch-session", watches);
    posted.views = views.length;
    posted.viewsInGarden = views.filter((event) => event.room === "garden").length;
    posted.watches = watches.length;
  }

  async function visitOnce(): Promise<void> {
    const ann = await User.create(browser);
    const annPage = await RoomPage.open(ann, hub.url);
    await annPage.pick("calm");
    await annPage.expectMood("calm", 1);
    posted.views++;
    await ann.close();
    await eventually(async () => {
      await hub.flush();
      const { totals, moods } = await hub.get<Stats>(statsPath({ range: "24h", room: "" }, ZONE));
      expect(totals).toMatchObject({ joins: 1, peakPresent: 1 });
      expect(moods.calm).toBeGreaterThan(0);
      expect((await hub.get<Health>("/health")).pendingPageViews).toBe(0);
    });
  }

  /** Waits for the history of the last query, and checks it against the hub's response. */
  async function expectHistory(range: Range, room: string): Promise<Stats> {
    const stats = await hub.get<Stats>(statsPath({ range, room }, ZONE));
    const { totals } = stats;
    const { begun, completed, minutes } = totals.sits ?? { begun: 0, completed: 0, minutes: 0 };
    const texts = {
      averagePresent: average(totals.averagePresent),
      peakPresent: count(totals.peakPresent),
      visitors: count(totals.visitors),
      joins: count(totals.joins),
      sits: `${count(completed)} of ${count(begun)}`,
      sitMinutes: duration(minutes * MINUTE),
      pageViews: count(totals.pageViews),
      watchedMs: duration(totals.watchedMs),
    };
    for (const [key, text] of Object.entries(texts)) {
      const value = page.locator(`[data-total=${key}] .value`);
      await expect.poll(() => value.textContent(), { message: `${range}: ${key}` }).toBe(text);
    }
    await page.locator('#history[aria-busy="false"]').waitFor();
    expect(await rows(page, "Top pages")).toEqual(
      withOther(
        stats.topPages.map((top) => ({ name: top.path, numbers: [top.pageViews] })),
        { name: OTHER, numbers: [stats.other.pages.pageViews] },
        8,
      ).map(({ name, numbers }) => [name, count(numbers[0]!)]),
    );
    expect(await rows(page, "Top content")).toEqual(
      stats.topContent.map((top) => [top.content, `${count(top.watchSessions)} ×`, duration(top.watchedMs)]),
    );
    expect(await rows(page, "Top referrers")).toEqual(
      stats.topReferrers.map((top) => [top.referrer, count(top.pageViews)]),
    );
    return stats;
  }

  /** Counts the colourful pixels of each chart; axes and grid are grey. */
  async function colourfulPixels(): Promise<number[]> {
    return await page.locator("#charts canvas").evaluateAll((canvases) =>
      canvases.map((canvas) => {
        const { width, height } = canvas as HTMLCanvasElement;
        const { data } = (canvas as HTMLCanvasElement).getContext("2d")!.getImageData(0, 0, width, height);
        let colourful = 0;
        for (let n = 0; n < data.length; n += 4) {
          const [red, green, blue, alpha] = data.slice(n, n + 4) as unknown as [number, number, number, number];
          if (alpha > 40 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60) colourful++;
        }
        return colourful;
      }),
    );
  }

  test.each(Object.keys(RANGES) as Range[])("%s shows the numbers of /unified-stats and draws the charts", async (range) => {
    await page.getByRole("radio", { name: range }).check();
    const stats = await expectHistory(range, "");
    expect(stats.totals.watchSessions).toBe(posted.watches);
    if (range === "12mo") expect(stats.totals.pageViews).toBe(posted.views);
    const [present, views, watched, moods] = await colourfulPixels();
    expect({ present, views, watched, moods }).toEqual({
      present: expect.toSatisfy((pixels) => pixels > 20),
      views: expect.toSatisfy((pixels) => pixels > 50),
      watched: expect.toSatisfy((pixels) => pixels > 20),
      moods: expect.toSatisfy((pixels) => pixels > 20),
    });
    const table = page.locator("figure", { hasText: "Page views and visitors" });
    await table.getByText("Numbers").click();
    const numbers = stats.series.map((bucket) => [count(bucket.pageViews), count(bucket.visitors)]);
    const shown = async (): Promise<unknown> =>
      (await rows(page, "Page views and visitors")).map(([, views, visitors]) => [views, visitors]);
    await expect.poll(shown).toEqual(numbers);
    await table.getByText("Numbers").click();
  });

  test("room filter is part of the page's URL", async () => {
    await page.getByRole("radio", { name: "12mo" }).check();
    const input = page.getByLabel("Room");
    await input.fill("garden");
    await input.press("Enter");
    const stats = await expectHistory("12mo", "garden");
    expect(stats.totals.pageViews).toBe(posted.viewsInGarden);
    expect(new URL(page.url()).search).toBe("?range=12mo&room=garden");
    await page.reload();
    await expectHistory("12mo", "garden");
    expect(await input.inputValue()).toBe("garden");
    await input.fill("");
    await expectHistory("12mo", "");
  });

  test("period can be chosen by keyboard", async () => {
    await page.getByRole("radio", { name: "12mo" }).focus();
    await page.keyboard.press("ArrowLeft");
    expect(await page.getByRole("radio", { name: "30d" }).isChecked()).toBe(true);
    await expectHistory("30d", "");
  });

  test("comparison has a text for screen readers", async () => {
    await page.getByRole("radio", { name: "7d" }).check();
    await expectHistory("7d", "");
    const text = await page.locator("[data-total=pageViews] .visually-hidden").textContent();
    expect(text).toMatch(/in the 7 days before$/);
  });

  test("loading causes no layout shift", async () => {
    const shifted = await viewer.tab();
    await shifted.addInitScript(() => {
      const shifts: string[] = [];
      Object.assign(window, { shifts });
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries() as (PerformanceEntry & { value: number })[]) {
          // A tenth of what counts as good. Computed: half of a phone's page that moves by a row of 24 px has 0.015.
          if (entry.value > 0.01) shifts.push(`${entry.value} at ${entry.startTime}`);
        }
      }).observe({ type: "layout-shift", buffered: true });
    });
    for (const viewport of [{ width: 390, height: 844 }, { width: 1440, height: 900 }]) {
      await shifted.setViewportSize(viewport);
      await shifted.goto(hub.url);
      await shifted.locator('#history[aria-busy="false"] canvas').first().waitFor();
      await shifted.getByText("The hub is healthy").waitFor();
      expect(await shifted.evaluate(() => (window as unknown as { shifts: string[] }).shifts)).toEqual([]);
    }
    await shifted.close();
  });

  test("shows an error if the history fails, with a retry button", async () => {
    const other = await User.create(browser, { timezoneId: ZONE });
    await other.context.route("**/unified-stats*", (route) =>
      route.fulfill({ status: 503, json: { error: { code: "history-unavailable", message: "the disk is gone" } } }),
    );
    page = await other.open(hub.url);
    await page.getByText("The hub reports: the disk is gone. There is no history to show.").waitFor();
    expect(await page.locator("[data-total=pageViews] .value").textContent()).toBe("–");
    await other.context.unroute("**/unified-stats*");
    await page.getByRole("button", { name: "Try again" }).click();
    await expectHistory("24h", "");
    await other.close(/503/);
  });
});

describe("with DASHBOARD=admin", () => {
  /** With characters that a subprotocol must not contain. */
  const TOKEN = "a+token/of=(24) 'bytes'!";
  let hub: Hub;
  beforeAll(async () => {
    hub = await Hub.start({ DASHBOARD: "admin", ADMIN_TOKEN: TOKEN });
  });
  afterAll(() => hub.dispose());

  test("asks for the token and stores it for the tab", async () => {
    const admin = await User.create(browser);
    const page = await admin.open(hub.url);
    const token = page.getByLabel("The dashboard of this hub needs the admin token.");
    await token.fill("a guess");
    await page.getByRole("button", { name: "Open the dashboard" }).click();
    await page.getByText("This is not the hub's admin token.").waitFor();
    await token.fill(TOKEN);
    await page.keyboard.press("Enter");
    // The page's data need the token too.
    const expectDashboard = async (): Promise<void> => {
      await page.locator("#live-users").filter({ hasText: /^0$/ }).waitFor();
      await page.locator("[data-total=pageViews] .value").filter({ hasText: /^0$/ }).waitFor();
    };
    await expectDashboard();
    await page.reload();
    await expectDashboard();
    for (const path of ["/live-activity", "/unified-stats"]) expect((await fetch(hub.url + path)).status).toBe(401);
    expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain("bytes");
    const other = await admin.open(hub.url);
    await other.getByLabel("The dashboard of this hub needs the admin token.").waitFor();
    // A browser logs every 401, also an expected one.
    await admin.close(/401/);
  });
});
