// The room page with several visitors.

import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { User, launch } from "./support/user";
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
  await page.getByText("You are here.").waitFor();
  await page.getByRole("radio", { name: /^hope/ }).check();
  await page.reload();
  await page.getByText("You are here.").waitFor();
  await expect.poll(() => hub.get(`/rooms/${room}`)).toMatchObject({ present: 1, moods: { hope: 1 } });
  const visitor = await page.evaluate(() => localStorage.getItem("breathing-room:visitor"));
  expect(visitor).toMatch(/^[0-9a-f]{32}$/);
  const socket = `${hub.url.replace("http", "ws")}/rooms/${room}/socket`;
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

test("mood can be chosen by keyboard", async () => {
  const annPage = await open(ann);
  await annPage.page.getByRole("radio", { name: "rather not say" }).focus();
  await annPage.page.keyboard.press("ArrowLeft");
  await annPage.expectMood("sad", 1);
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

test("live region announces changes, throttled", async () => {
  const annPage = await open(ann);
  const region = annPage.page.getByRole("status");
  await region.filter({ hasText: "You are here. You are the only one here." }).waitFor();
  await annPage.page.evaluate(() => {
    const region = document.querySelector("#announcer")!;
    const announced: [number, string][] = [];
    new MutationObserver(() => announced.push([performance.now(), region.textContent])).observe(region, { childList: true });
    Object.assign(window, { announced });
  });
  const bobPage = await open(bob);
  for (const mood of ["calm", "joy", "love", "peace"]) {
    await bobPage.pick(mood);
    await annPage.expectMood(mood, 1);
  }
  await region.filter({ hasText: "2 people breathe here: 1 peace." }).waitFor();
  const changes = await annPage.page.evaluate(() => (window as unknown as { announced: [number, string][] }).announced);
  const times = changes.map(([at]) => at);
  for (const [index, at] of times.slice(1).entries()) expect(at - times[index]!).toBeGreaterThanOrEqual(4_900);
});
