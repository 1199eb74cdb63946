// Paths that are dead while their sockets look open: counts are dimmed with their age, and the page reconnects.

import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { UNREACHABLE, User, launch } from "./support/user";
import { EmbeddingSite } from "./support/embedding-site";
import { Hub } from "./support/hub";
import { Phone } from "./support/phone";
import { RoomPage } from "./support/room-page";
import { TcpProxy } from "./support/tcp-proxy";

let browser: Browser;
let hub: Hub;
let proxy: TcpProxy;
let phone: Phone;
let ann: User;

beforeAll(async () => {
  [browser, phone] = await Promise.all([launch(), Phone.start()]);
});
afterAll(() => Promise.all([browser.close(), phone.close()]));
beforeEach(async () => {
  [hub, ann] = await Promise.all([Hub.start(), User.create(browser)]);
  proxy = await TcpProxy.start(hub.port, shortenPingAfter);
});
afterEach(async () => {
  await Promise.all([phone.closePages(), ann.close(UNREACHABLE)]);
  proxy.close();
  await hub.dispose();
});

/** Makes the minute after which a quiet page asks for a sign of life two seconds, in as many bytes. */
function shortenPingAfter(data: Buffer): Buffer {
  return Buffer.from(data.toString("latin1").replace('"pingAfterMs":60000', '"pingAfterMs": 2000'), "latin1");
}

/** Records each state that a room page shows: its dimming, its count and the words. */
async function record(page: Page): Promise<() => Promise<string[]>> {
  await page.evaluate(() => {
    const shown: string[] = [];
    const text = (id: string): string => document.getElementById(id)!.textContent;
    const note = (): void => {
      const dimmed = Number(getComputedStyle(document.querySelector(".present")!).opacity) < 1 ? "dimmed " : "";
      const state = text("state-text").replace(/\d+ seconds?/, "N seconds");
      const now = `${dimmed}${text("present")}: ${state}`;
      if (shown.at(-1) !== now) shown.push(now);
    };
    note();
    new MutationObserver(note).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    Object.assign(window, { shown });
  });
  return () => page.evaluate(() => (window as unknown as { shown: string[] }).shown);
}

const OPEN = "1: You are here.";
const CHECKING = "dimmed 1: Checking the connection. These numbers are N seconds old.";
const LOST = "–: Connection lost. Reconnecting…";

test("page that is visible again and a paused hub: the count is dimmed with its age, then gone, then back", async () => {
  const { page } = await RoomPage.open(phone.user, hub.url);
  await phone.hide(page);
  const shown = await record(page);
  await hub.pause();
  await phone.show(page);
  await expect.poll(shown, { timeout: 20_000 }).toEqual([OPEN, CHECKING, LOST]);
  hub.resume();
  await expect.poll(shown, { timeout: 20_000 }).toEqual([OPEN, CHECKING, LOST, OPEN]);
});

test("page that is visible again and a good path: the count is never gone", async () => {
  const { page } = await RoomPage.open(phone.user, hub.url);
  await phone.hide(page);
  const shown = await record(page);
  const bobPage = await RoomPage.open(ann, hub.url);
  await bobPage.expectPresent(2);
  await phone.show(page);
  await expect.poll(shown, { timeout: 20_000 }).toContain("2: You are here.");
  expect(await shown()).not.toContain(LOST);
});

test("open socket whose bytes are dropped, in a quiet room: the page checks by itself and reconnects", async () => {
  const annPage = await RoomPage.open(ann, proxy.url);
  const shown = await record(annPage.page);
  proxy.drop();
  await expect.poll(shown, { timeout: 20_000 }).toEqual([OPEN, CHECKING, LOST, OPEN]);
  expect(await hub.get("/rooms/lobby")).toMatchObject({ present: 1 });
});

test("quiet room and a good path: checks leave no trace", async () => {
  const annPage = await RoomPage.open(ann, proxy.url);
  const sent: string[] = [];
  const cdp = await ann.context.newCDPSession(annPage.page);
  await cdp.send("Network.enable");
  cdp.on("Network.webSocketFrameSent", ({ response }) => sent.push(response.payloadData));
  const shown = await record(annPage.page);
  await expect.poll(() => sent.filter((text) => text.includes('"ping"')).length, { timeout: 20_000 }).toBeGreaterThan(1);
  expect((await shown()).filter((text) => text !== OPEN && text !== CHECKING)).toEqual([]);
});

test("page that was hidden for long leaves the room, and is back when it is visible", async () => {
  const site = await EmbeddingSite.start(hub.url);
  try {
    const page = await phone.user.open(`${site.url}/plain`);
    await page.evaluate((hub) => void BreathingRoom.joinRoom({ hub, room: "lobby", idleAfter: 500 }), hub.url);
    const present = (): Promise<unknown> => hub.get("/rooms/lobby");
    await expect.poll(present, { timeout: 20_000 }).toMatchObject({ present: 1 });
    await phone.hide(page);
    await expect.poll(present, { timeout: 20_000 }).toMatchObject({ present: 0 });
    await phone.show(page);
    await expect.poll(present, { timeout: 20_000 }).toMatchObject({ present: 1 });
  } finally {
    site.close();
  }
});

test("dashboard that is visible again and a dead path: the numbers are dimmed with their age, then new", async () => {
  await RoomPage.open(ann, hub.url);
  const page = await phone.user.open(proxy.url);
  const people = page.locator("#live-users");
  await people.filter({ hasText: /^1$/ }).waitFor();
  await phone.hide(page);
  proxy.drop();
  const bob = await User.create(browser);
  await RoomPage.open(bob, hub.url);
  await phone.show(page);
  await page.getByText(/^Checking the connection\. These numbers are \d+ s old\.$/).waitFor();
  expect(await people.textContent()).toBe("1");
  const opacity = await page.locator(".people").evaluate((element) => Number(getComputedStyle(element).opacity));
  expect(opacity).toBeLessThan(1);
  await people.filter({ hasText: /^2$/ }).waitFor();
  await page.getByText("Live", { exact: true }).waitFor();
  await bob.close();
});

test("dashboard of a paused hub: neither its numbers nor its health look alive", async () => {
  const page = await phone.user.open(hub.url);
  await page.getByText("The hub is healthy").waitFor();
  await phone.hide(page);
  await hub.pause();
  await phone.show(page);
  await page.getByText("The hub does not respond.", { exact: true }).waitFor();
  await page.locator("#live-users").filter({ hasText: "–" }).waitFor();
  hub.resume();
  await page.getByText("The hub is healthy").waitFor();
});
