// The room page with several visitors.

import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { User, launch } from "./support/user";
import { eventually } from "./support/eventually";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room-page";

let browser: Browser;
let hub: Hub;
let ann: User;
let bob: User;
/** A new room per test, so that visitors in the leave grace of the previous test do not count. */
let room: string;
let rooms = 0;

beforeAll(async () => {
  [browser, hub] = await Promise.all([launch(), Hub.start()]);
});
afterAll(async () => {
  await browser.close();
  await hub.dispose();
});
beforeEach(async () => {
  room = `room-${++rooms}`;
  [ann, bob] = await Promise.all([User.create(browser), User.create(browser)]);
});
afterEach(async () => {
  await Promise.all([ann.close(), bob.close()]);
});

function open(user: User): Promise<RoomPage> {
  return RoomPage.open(user, hub.url, room);
}

/** Joins and disconnects a third visitor, and waits until `observer` sees `remaining` visitors after the leave grace. */
async function joinAndDisconnect(observer: RoomPage, remaining: number): Promise<void> {
  const stranger = await User.create(browser);
  const strangerPage = await open(stranger);
  await observer.expectPresent(remaining + 1);
  await strangerPage.page.close();
  await observer.expectPresent(remaining);
  await stranger.close();
}

test("two visitors see each other and their moods", async () => {
  const annPage = await open(ann);
  await annPage.expectPresent(1);
  const bobPage = await open(bob);
  await Promise.all([annPage.expectPresent(2), bobPage.expectPresent(2)]);
  await annPage.pick("calm");
  await Promise.all([annPage.expectMood("calm", 1), bobPage.expectMood("calm", 1)]);
  await bobPage.pick("joy");
  await Promise.all([annPage.expectMood("joy", 1), bobPage.expectMood("joy", 1)]);
  await bobPage.pick("calm");
  await Promise.all([annPage.expectMood("calm", 2), annPage.expectMood("joy", 0)]);
  await annPage.pick("rather not say");
  await Promise.all([annPage.expectMood("calm", 1), bobPage.expectMood("calm", 1)]);
  expect(await annPage.page.locator("#lights > *").count()).toBe(2);
});

test("no URL contains the visitor id or the mood", async () => {
  const page = await ann.tab();
  const addresses: string[] = [];
  page.on("request", (request) => addresses.push(request.url()));
  page.on("websocket", (socket) => addresses.push(socket.url()));
  await page.goto(`${hub.url}/room/${room}`);
  await page.getByText("You are here.", { exact: true }).waitFor();
  await page.getByRole("radio", { name: /^hope/ }).check();
  await page.reload();
  await page.getByText("You are here.", { exact: true }).waitFor();
  await expect.poll(() => hub.get(`/rooms/${room}`)).toMatchObject({ present: 1, moods: { hope: 1 } });
  const visitor = await page.evaluate(() => localStorage.getItem("breathing-room:visitor"));
  expect(visitor).toMatch(/^[0-9a-f]{32}$/);
  const socket = `${hub.url.replace("http", "ws")}/rooms/${room}/socket?features=own-mood,own-sit,keepalive`;
  expect(addresses.filter((address) => address.startsWith("ws"))).toEqual([socket, socket]);
  expect(addresses.filter((address) => address.includes(visitor!) || address.includes("hope"))).toEqual([]);
});

test("two tabs of one visitor count once, until both are closed", async () => {
  const annPage = await open(ann);
  const bobPage = await open(bob);
  await annPage.expectPresent(2);
  await annPage.shownCounts();
  const second = await open(bob);
  await second.expectPresent(2);
  expect(await hub.get(`/rooms/${room}`)).toMatchObject({ present: 2 });
  await second.page.close();
  await joinAndDisconnect(annPage, 2);
  await bobPage.page.close();
  await annPage.expectPresent(1);
  expect(await annPage.shownCounts()).toEqual(["2", "3", "2", "1"]);
});

test("reload does not change the count and keeps the mood", async () => {
  const annPage = await open(ann);
  const bobPage = await open(bob);
  await bobPage.pick("hope");
  await Promise.all([annPage.expectPresent(2), annPage.expectMood("hope", 1)]);
  await annPage.shownCounts();
  await bobPage.page.reload();
  await bobPage.expectPresent(2);
  // The leave grace of a later disconnect has passed, so the grace of the reload has too.
  await joinAndDisconnect(annPage, 2);
  expect(await annPage.shownCounts()).toEqual(["2", "3", "2"]);
  await annPage.expectMood("hope", 1);
  await expect.poll(() => bobPage.page.getByRole("radio", { name: /^hope/ }).isChecked()).toBe(true);
});

test("rhythm can be chosen by keyboard and survives a reload", async () => {
  const { page } = await open(ann);
  await page.locator("#breath-text").filter({ hasText: /^(breathe in|hold|breathe out)$/ }).waitFor();
  await page.getByRole("radio", { name: "4-7-8" }).focus();
  await page.keyboard.press("ArrowRight");
  await page.reload();
  expect(await page.getByRole("radio", { name: "Box" }).isChecked()).toBe(true);
  await page.getByText("hold for 4, breathe out for 4").waitFor({ state: "attached" });
});

test("mood can be chosen by keyboard: it counts when it rests for a second", async () => {
  const annPage = await open(ann);
  await annPage.page.getByRole("radio", { name: "rather not say" }).focus();
  await annPage.page.keyboard.press("ArrowLeft");
  await annPage.expectMood("sad", 1);
});

test("arrow keys through the moods broadcast only the one that Enter or space chooses", async () => {
  const annPage = await open(ann);
  const bobPage = await open(bob);
  await annPage.expectPresent(2);
  const seen = await moodsSeen(bobPage.page);
  await annPage.page.getByRole("radio", { name: "rather not say" }).focus();
  // In the page, without a pause between the keys: a rest of a second would choose a mood.
  for (const key of ["ArrowLeft", "ArrowLeft", "ArrowLeft", "Enter"]) await annPage.page.keyboard.press(key);
  await bobPage.expectMood("tired", 1);
  for (const key of ["ArrowRight", "ArrowRight", "Space"]) await annPage.page.keyboard.press(key);
  await Promise.all([bobPage.expectMood("sad", 1), annPage.expectMood("sad", 1)]);
  expect(await seen()).toEqual(["tired", "sad"]);
});

/** Records each mood that gets a count in this page. */
async function moodsSeen(page: Page): Promise<() => Promise<string[]>> {
  await page.evaluate(() => {
    const seen: string[] = [];
    Object.assign(window, { seen });
    new MutationObserver(() => {
      for (const count of document.querySelectorAll("#picker .count:not(:empty)")) {
        const mood = count.closest("label")!.querySelector("input")!.value;
        if (!seen.includes(mood)) seen.push(mood);
      }
    }).observe(document.querySelector("#picker")!, { subtree: true, childList: true });
  });
  return () => page.evaluate(() => (window as unknown as { seen: string[] }).seen);
}

test("two tabs of one visitor show one mood, and a reload does not bring back an old one", async () => {
  const [first, second] = [await open(ann), await open(ann)];
  const checked = (tab: RoomPage, name: RegExp): Promise<void> =>
    expect.poll(() => tab.page.getByRole("radio", { name }).isChecked(), { timeout: 20_000 }).toBe(true);
  await first.pick("calm");
  await checked(second, /^calm/);
  await second.pick("joy");
  await checked(first, /^joy/);
  await first.page.reload();
  await checked(first, /^joy/);
  await first.expectMood("joy", 1);
  expect(await hub.get(`/rooms/${room}`)).toMatchObject({ present: 1, moods: { joy: 1 } });
  await first.pick("rather not say");
  await checked(second, /^rather/);
  await second.page.reload();
  await checked(second, /^rather/);
  await second.expectState("You are here.");
  expect(await hub.get(`/rooms/${room}`)).toMatchObject({ present: 1, moods: {} });
});

test("circle is animated, except with reduced motion", async () => {
  const { page } = await open(ann);
  const moving = (): Promise<number> => page.evaluate(() => document.querySelector("#circle")!.getAnimations().length);
  expect(await moving()).toBe(1);
  expect(await page.locator("#progress").isVisible()).toBe(false);
  await page.emulateMedia({ reducedMotion: "reduce" });
  await expect.poll(moving).toBe(0);
  expect(await page.locator("#progress").isVisible()).toBe(true);
});

test("live region announces own changes at once, and other people seldom", async () => {
  const annPage = await open(ann);
  const region = annPage.page.getByRole("status");
  await region.filter({ hasText: "You are here. You are the only one here." }).waitFor();
  const bobPage = await open(bob);
  for (const mood of ["calm", "joy", "love", "peace"]) {
    await bobPage.pick(mood);
    await annPage.expectMood(mood, 1);
  }
  // Another announcement is less than a minute ago.
  expect(await region.textContent()).toBe("You are here. You are the only one here.");
  await annPage.pick("hope");
  await region.filter({ hasText: "Your mood is hope." }).waitFor();
});

test("announcements of other people have a switch, which survives a reload", async () => {
  const { page } = await open(ann);
  const announce = page.getByRole("checkbox", { name: "Announce other people to my screen reader" });
  expect(await announce.isChecked()).toBe(true);
  await announce.focus();
  await page.keyboard.press("Space");
  await page.reload();
  expect(await announce.isChecked()).toBe(false);
});

test("forced colours show the chosen mood and rhythm, and the lights", async () => {
  const viewer = await User.create(browser, { forcedColors: "active" });
  const { page } = await open(viewer);
  await page.getByRole("radio", { name: /^calm/ }).check();
  const background = (selector: string): Promise<string> =>
    page.locator(selector).first().evaluate((element) => getComputedStyle(element).backgroundColor);
  for (const group of ["#picker", "#rhythms"]) {
    const chosen = await background(`${group} input:checked + span`);
    expect(chosen).not.toBe(await background(`${group} input:not(:checked) + span`));
  }
  const ground = await background("body");
  await expect.poll(() => background("#lights .light")).not.toBe(ground);
  expect(await background("#picker .dot")).not.toBe(ground);
  await viewer.close();
});

test("room page records where its visitors came from", async () => {
  const page = await ann.tab();
  await page.goto(`${hub.url}/room/${room}?utm_source=letter`, { referer: "https://example.org/sit" });
  await page.getByText("You are here.", { exact: true }).waitFor();
  await eventually(async () => {
    await hub.flush();
    const rows = hub.rows<object>(`SELECT path, referrer, props FROM page_views WHERE path = '/room/${room}'`);
    expect(rows).toEqual([
      { path: `/room/${room}`, referrer: "https://example.org/sit", props: '{"utm_source":"letter"}' },
    ]);
  });
});
