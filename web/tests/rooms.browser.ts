// People in a room, as they see each other.

import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { Person, launch } from "./support/browser";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room";

let browser: Browser;
let hub: Hub;
let ann: Person;
let bob: Person;
/** Each test has its own, so that nobody who is still missed from the one before is counted. */
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
  [ann, bob] = await Promise.all([Person.come(browser), Person.come(browser)]);
});
afterEach(async () => {
  await Promise.all([ann.goes(), bob.goes()]);
});

function enter(person: Person): Promise<RoomPage> {
  return RoomPage.enter(person, hub.url, room);
}

/** Somebody whose connection breaks, and who is seen to leave when the grace for such is over. */
async function strangerIsLost(witness: RoomPage, left: number): Promise<void> {
  const stranger = await Person.come(browser);
  const strangers = await enter(stranger);
  await witness.expectPresent(left + 1);
  await strangers.page.close();
  await witness.expectPresent(left);
  await stranger.goes();
}

test("two people see each other and each other's moods", async () => {
  const anns = await enter(ann);
  await anns.expectPresent(1);
  const bobs = await enter(bob);
  await Promise.all([anns.expectPresent(2), bobs.expectPresent(2)]);
  await anns.pick("calm");
  await Promise.all([anns.expectMood("calm", 1), bobs.expectMood("calm", 1)]);
  await bobs.pick("joy");
  await Promise.all([anns.expectMood("joy", 1), bobs.expectMood("joy", 1)]);
  await bobs.pick("calm");
  await Promise.all([anns.expectMood("calm", 2), anns.expectMood("joy", 0)]);
  await anns.pick("rather not say");
  await Promise.all([anns.expectMood("calm", 1), bobs.expectMood("calm", 1)]);
  expect(await anns.page.locator("#lights > *").count()).toBe(2);
});

test("who comes, and in what mood, stands in no address", async () => {
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

test("two tabs of one person count once, and closing one of two people leaves the other", async () => {
  const anns = await enter(ann);
  const bobs = await enter(bob);
  await anns.expectPresent(2);
  await anns.seen();
  const second = await enter(bob);
  await second.expectPresent(2);
  expect(await hub.get(`/rooms/${room}`)).toMatchObject({ present: 2 });
  await second.page.close();
  await strangerIsLost(anns, 2);
  await bobs.page.close();
  await anns.expectPresent(1);
  expect(await anns.seen()).toEqual(["2", "3", "2", "1"]);
});

test("a reload is not seen by the other, and keeps the mood", async () => {
  const anns = await enter(ann);
  const bobs = await enter(bob);
  await bobs.pick("hope");
  await Promise.all([anns.expectPresent(2), anns.expectMood("hope", 1)]);
  await anns.seen();
  await bobs.page.reload();
  await bobs.expectPresent(2);
  // Whoever breaks off after the reload is missed; so the grace of the reload is over too.
  await strangerIsLost(anns, 2);
  expect(await anns.seen()).toEqual(["2", "3", "2"]);
  await anns.expectMood("hope", 1);
  await expect.poll(() => bobs.page.getByRole("radio", { name: /^hope/ }).isChecked()).toBe(true);
});

test("the rhythm can be chosen by keyboard and is kept", async () => {
  const { page } = await enter(ann);
  await page.locator("#breath-words").filter({ hasText: /^(breathe in|hold|breathe out)$/ }).waitFor();
  await page.getByRole("radio", { name: "4-7-8" }).focus();
  await page.keyboard.press("ArrowRight");
  await page.reload();
  expect(await page.getByRole("radio", { name: "Box" }).isChecked()).toBe(true);
  await page.getByText("hold for 4, breathe out for 4").waitFor({ state: "attached" });
});

test("a mood can be chosen by keyboard", async () => {
  const anns = await enter(ann);
  await anns.page.getByRole("radio", { name: "rather not say" }).focus();
  await anns.page.keyboard.press("ArrowLeft");
  await anns.expectMood("sad", 1);
});

test("the circle moves, but not for those who asked for less motion", async () => {
  const { page } = await enter(ann);
  const moving = (): Promise<number> => page.evaluate(() => document.querySelector("#circle")!.getAnimations().length);
  expect(await moving()).toBe(1);
  expect(await page.locator("#progress").isVisible()).toBe(false);
  await page.emulateMedia({ reducedMotion: "reduce" });
  await expect.poll(moving).toBe(0);
  expect(await page.locator("#progress").isVisible()).toBe(true);
});

test("screen readers hear what changes, but not each of many changes", async () => {
  const anns = await enter(ann);
  const heard = anns.page.getByRole("status");
  await heard.filter({ hasText: "You are here. You are the only one here." }).waitFor();
  await anns.page.evaluate(() => {
    const region = document.querySelector("#announcer")!;
    const heard: [number, string][] = [];
    new MutationObserver(() => heard.push([performance.now(), region.textContent])).observe(region, { childList: true });
    Object.assign(window, { heard });
  });
  const bobs = await enter(bob);
  for (const mood of ["calm", "joy", "love", "peace"]) {
    await bobs.pick(mood);
    await anns.expectMood(mood, 1);
  }
  await heard.filter({ hasText: "2 people breathe here: 1 peace." }).waitFor();
  const changes = await anns.page.evaluate(() => (window as unknown as { heard: [number, string][] }).heard);
  const times = changes.map(([at]) => at);
  for (const [index, at] of times.slice(1).entries()) expect(at - times[index]!).toBeGreaterThanOrEqual(4_900);
});
