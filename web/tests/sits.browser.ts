// Sits: visitors who stay present while their phones are locked.

import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { type Stats, statsPath } from "../app/src/dashboard/stats";
import { UNREACHABLE, User, launch } from "./support/user";
import { EmbeddingSite } from "./support/embedding-site";
import { eventually } from "./support/eventually";
import { Hub } from "./support/hub";
import { Phone } from "./support/phone";
import { RoomPage } from "./support/room-page";
import { TcpProxy } from "./support/tcp-proxy";

interface Activity {
  present: number;
  held?: number;
}

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
  ann = await User.create(browser);
});
afterEach(async () => {
  await Promise.all([phone.closePages(), ann.close(UNREACHABLE)]);
  proxy.close();
  await hub.dispose();
});

/** Starts a hub, and a proxy between it and the phone. */
async function start(settings: Record<string, string>): Promise<void> {
  hub = await Hub.start({ LEAVE_GRACE: "300ms", ...settings });
  proxy = await TcpProxy.start(hub.port);
}

/** Joins and disconnects a third visitor. Then the leave grace of all who were lost before is over. */
async function passGrace(observer: RoomPage, remaining: number): Promise<void> {
  const stranger = await User.create(browser);
  const strangerPage = await RoomPage.open(stranger, hub.url);
  await observer.expectPresent(remaining + 1);
  await strangerPage.page.close();
  await observer.expectPresent(remaining);
  await stranger.close();
}

async function expectRoom(expected: Activity): Promise<void> {
  await expect.poll(() => hub.get<Activity>("/rooms/lobby"), { timeout: 20_000 }).toMatchObject(expected);
}

/** Locks the phone, and then loses its connection. */
async function lockAndCut(page: Page): Promise<void> {
  await phone.lock(page);
  proxy.cut();
}

/** How long (ms) the phone stays locked after what a test waits for. `FROZEN_FOR=180000` is as in real use. */
const FROZEN_FOR = Number(process.env.FROZEN_FOR ?? 0);
vi.setConfig({ testTimeout: 60_000 + 2 * FROZEN_FOR });

async function restoreAndUnlock(page: Page): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, FROZEN_FOR));
  proxy.restore();
  await phone.unlock(page);
}

test("locked phone without a sit leaves after the grace, and is back after the unlock", async () => {
  await start({});
  const annPage = await RoomPage.open(ann, hub.url);
  const phonePage = await RoomPage.open(phone.user, proxy.url);
  await annPage.expectPresent(2);
  await lockAndCut(phonePage.page);
  await annPage.expectPresent(1);
  await restoreAndUnlock(phonePage.page);
  await Promise.all([annPage.expectPresent(2), phonePage.expectState("You are here."), phonePage.expectPresent(2)]);
});

test("locked phone with a sit stays present, and the sit goes on after the unlock", async () => {
  await start({});
  const annPage = await RoomPage.open(ann, hub.url);
  const phonePage = await RoomPage.open(phone.user, proxy.url);
  await phonePage.sit(20);
  await annPage.expectPresent(2);
  await annPage.shownCounts();
  await lockAndCut(phonePage.page);
  await expectRoom({ present: 2, held: 1 });
  await passGrace(annPage, 2);
  await restoreAndUnlock(phonePage.page);
  await expectRoom({ present: 2, held: 0 });
  await Promise.all([phonePage.expectState("You are here."), phonePage.expectPresent(2), phonePage.expectSitting()]);
  expect(await annPage.shownCounts()).toEqual(["2", "3", "2"]);
  await phonePage.page.getByRole("button", { name: "End the sit" }).click();
  await phonePage.expectNotSitting();
  await lockAndCut(phonePage.page);
  await annPage.expectPresent(1);
});

test("page that is frozen during a sit gives up its socket, and its end is no closed tab", async () => {
  await start({});
  const annPage = await RoomPage.open(ann, hub.url);
  const phonePage = await RoomPage.open(phone.user, hub.url);
  await phonePage.sit(20);
  await annPage.expectPresent(2);
  await phone.lock(phonePage.page);
  await expectRoom({ present: 2, held: 1 });
  await phonePage.page.close();
  await passGrace(annPage, 2);
  await expectRoom({ present: 2, held: 1 });
});

test("sits end: one visitor stays and hears the bell, the other's place is free", async () => {
  await start({ SIT_LIMIT: "4s" });
  await ann.context.addInitScript(recordSound);
  const annPage = await RoomPage.open(ann, hub.url);
  const phonePage = await RoomPage.open(phone.user, proxy.url);
  await annPage.page.getByLabel("a bell at the end").check();
  await Promise.all([annPage.sit(5), phonePage.sit(45)]);
  await lockAndCut(phonePage.page);
  await expectRoom({ present: 2, held: 1 });
  await Promise.all([annPage.expectNotSitting(), annPage.expectPresent(1)]);
  await annPage.page.getByRole("status").filter({ hasText: "The sit has ended." }).waitFor();
  await annPage.page.waitForFunction(() => (window as unknown as { loudness(): number }).loudness() > 0.01);
  await restoreAndUnlock(phonePage.page);
  await Promise.all([phonePage.expectNotSitting(), phonePage.expectPresent(2)]);
});

test("completed sit is in the history", async () => {
  await start({ SIT_LIMIT: "1s" });
  const annPage = await RoomPage.open(ann, hub.url);
  await annPage.sit(5);
  await annPage.expectNotSitting();
  await annPage.page.close();
  await eventually(async () => {
    await hub.flush();
    const { totals } = await hub.get<Stats>(statsPath({ range: "24h", room: "" }, "UTC"));
    expect(totals.sits).toMatchObject({ begun: 1, completed: 1 });
  });
});

test("bell stays silent unless it was chosen", async () => {
  await start({ SIT_LIMIT: "1s" });
  const annPage = await RoomPage.open(ann, hub.url);
  await annPage.page.evaluate(() => {
    window.AudioContext = class extends AudioContext {
      constructor() {
        super();
        document.body.dataset.sound = "on";
      }
    };
  });
  await annPage.sit(5);
  await annPage.expectNotSitting();
  expect(await annPage.page.locator("body[data-sound]").count()).toBe(0);
});

test("killed and restarted hub: sits and moods go on, also those of a locked phone", async () => {
  await start({});
  const annPage = await RoomPage.open(ann, hub.url);
  const phonePage = await RoomPage.open(phone.user, proxy.url);
  await Promise.all([annPage.sit(10), phonePage.sit(10)]);
  await Promise.all([annPage.pick("calm"), phonePage.pick("peace")]);
  await Promise.all([annPage.expectMood("calm", 1), annPage.expectMood("peace", 1)]);
  await lockAndCut(phonePage.page);
  await expectRoom({ present: 2, held: 1 });
  const saved = (): object[] => hub.rows("SELECT mood FROM seats WHERE sit_until IS NOT NULL ORDER BY mood");
  await eventually(() => expect(saved()).toEqual([{ mood: "calm" }, { mood: "peace" }]));
  await hub.kill();
  await annPage.expectState("Connection lost.");
  await annPage.expectSitting();
  await annPage.expectSitNote("Not connected, but your place is held");
  await hub.start();
  await Promise.all([annPage.expectState("You are here."), annPage.expectPresent(2), annPage.expectSitting()]);
  await Promise.all([annPage.expectMood("calm", 1), annPage.expectMood("peace", 1)]);
  await expectRoom({ present: 2, held: 1 });
  await restoreAndUnlock(phonePage.page);
  await Promise.all([phonePage.expectPresent(2), phonePage.expectSitting()]);
  await expectRoom({ present: 2, held: 0 });
});

test("closed tab ends its sit after the grace", async () => {
  await start({});
  const annPage = await RoomPage.open(ann, hub.url);
  const phonePage = await RoomPage.open(phone.user, hub.url);
  await phonePage.sit(10);
  await annPage.expectPresent(2);
  await phonePage.page.close();
  await annPage.expectPresent(1);
});

test("reloaded page goes on with its sit", async () => {
  await start({ LEAVE_GRACE: "20s" });
  const annPage = await RoomPage.open(ann, hub.url);
  await annPage.sit(10);
  await annPage.page.reload();
  await annPage.expectSitting();
});

test("forgotten tab stays during the sit of another device, and leaves after it", async () => {
  await start({ SIT_LIMIT: "6s" });
  const site = await EmbeddingSite.start(hub.url);
  try {
    // Here the phone is the device that can hide a tab.
    const annPage = await RoomPage.open(ann, proxy.url);
    const visitor = await annPage.page.evaluate(() => localStorage.getItem("breathing-room:visitor")!);
    const tab = await phone.user.open(`${site.url}/plain`);
    await tab.evaluate(
      ([hub, visitor]) => {
        const options = { hub: hub!, room: "lobby", visitor: visitor!, idleAfter: 500 };
        Object.assign(window, { room: BreathingRoom.joinRoom(options) });
      },
      [hub.url, visitor],
    );
    await tab.waitForFunction(() => (window as unknown as { room: { state: string } }).room.state === "open");
    await annPage.sit(20);
    await tab.waitForFunction(() => {
      const { room } = window as unknown as { room: { state: string; currentSit: EventTarget | null } };
      room.currentSit?.addEventListener("end", () => (document.title = room.state));
      return room.currentSit;
    });
    proxy.cut();
    await phone.hide(tab);
    await expectRoom({ present: 0 });
    expect(await tab.title()).toBe("open");
    await phone.show(tab);
    await expectRoom({ present: 1, held: 0 });
  } finally {
    site.close();
  }
});

test("sit is shown in the visitor's other tab, and may be ended there", async () => {
  await start({});
  const [one, two] = [await RoomPage.open(ann, hub.url), await RoomPage.open(ann, hub.url)];
  await one.sit(20);
  await two.expectSitting();
  await two.expectSitNote("Your place is held");
  await two.page.getByRole("button", { name: "End the sit" }).click();
  await Promise.all([one.expectNotSitting(), two.expectNotSitting()]);
});

test("sit that begins without a connection is held only when the hub has confirmed it", async () => {
  await start({});
  const annPage = await RoomPage.open(ann, proxy.url);
  proxy.cut();
  await annPage.expectState("Connection lost.");
  await annPage.sit(20);
  await annPage.expectSitNote("Not connected: your place is not held yet.");
  proxy.restore();
  await annPage.expectSitNote("Your place is held");
  proxy.cut();
  await annPage.expectSitNote("Not connected, but your place is held until the sit ends.");
});

test("end of a sit that passed while the page was frozen is shown once, and the bell does not ring twice", async () => {
  await start({ SIT_LIMIT: "4s" });
  const phonePage = await RoomPage.open(phone.user, proxy.url);
  const { page } = phonePage;
  await page.evaluate(countBells);
  await page.getByLabel("a bell at the end").check();
  await phonePage.sit(5);
  await phonePage.expectSitNote("Your place is held");
  await lockAndCut(page);
  await expectRoom({ present: 0, held: 0 });
  await restoreAndUnlock(page);
  await phonePage.expectNotSitting();
  await phonePage.expectState("You are here.");
  await phone.hide(page);
  await phone.show(page);
  await phonePage.expectState("You are here.");
  const { ends, bells } = await page.evaluate(() => (window as unknown as { heard(): { ends: number; bells: number } }).heard());
  expect(ends).toBe(1);
  expect(bells).toBeLessThanOrEqual(1);
});

test("screen is kept awake while sitting, again after an unlock, and no longer after the end", async () => {
  await start({});
  const { page } = await RoomPage.open(phone.user, hub.url);
  const note = page.locator("#sit-note");
  expect(await note.textContent()).toContain("If your phone locks, you stay in the room until the sit ends.");
  await page.getByRole("button", { name: "10 minutes", exact: true }).click();
  await note.filter({ hasText: "The screen stays on." }).waitFor();
  await phone.lock(page);
  await phone.unlock(page);
  await note.filter({ hasText: "The screen stays on." }).waitFor();
  await page.getByRole("button", { name: "End the sit" }).click();
  await note.filter({ hasText: /^If your phone locks/ }).waitFor();
});

/** Runs in the page. Counts how often the page shows the end of a sit, and the bells that ring or will. */
function countBells(): void {
  let ends = 0;
  const bells = new Set<AudioNode>();
  const running = document.querySelector<HTMLElement>("#sit-running")!;
  let wasHidden = running.hidden;
  new MutationObserver(() => {
    if (running.hidden && !wasHidden) ends++;
    wasHidden = running.hidden;
  }).observe(running, { attributeFilter: ["hidden"] });
  const { connect, disconnect } = AudioNode.prototype;
  AudioNode.prototype.connect = function (this: AudioNode, ...args: unknown[]) {
    if (args[0] instanceof AudioDestinationNode) bells.add(this);
    return Reflect.apply(connect, this, args);
  } as typeof connect;
  AudioNode.prototype.disconnect = function (this: AudioNode) {
    bells.delete(this);
    Reflect.apply(disconnect, this, []);
  };
  Object.assign(window, { heard: () => ({ ends, bells: bells.size }) });
}

/** Runs in the page. Measures the loudness of what the page plays. */
function recordSound(): void {
  let analyser: AnalyserNode | undefined;
  const { connect } = AudioNode.prototype;
  AudioNode.prototype.connect = function (this: AudioNode, ...args: unknown[]) {
    if (args[0] instanceof AudioDestinationNode) {
      analyser ??= new AnalyserNode(this.context, { fftSize: 2048 });
      Reflect.apply(connect, this, [analyser]);
    }
    return Reflect.apply(connect, this, args);
  } as typeof connect;
  Object.assign(window, {
    loudness: () => {
      if (!analyser) return 0;
      const samples = new Float32Array(analyser.fftSize);
      analyser.getFloatTimeDomainData(samples);
      return Math.max(...samples.map(Math.abs));
    },
  });
}
