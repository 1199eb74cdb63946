// Devices whose clocks are wrong: all breathe together, and no page view is lost.

import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { User, launch } from "./support/user";
import { eventually } from "./support/eventually";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room-page";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const CYCLE = 19_000; // of 4-7-8

let browser: Browser;
let hub: Hub;

beforeAll(async () => {
  [browser, hub] = await Promise.all([launch(), Hub.start()]);
});
afterAll(async () => {
  await browser.close();
  await hub.dispose();
});

/** Creates a user whose device has a clock that is `shift` ms ahead. */
async function userWithClock(shift: number): Promise<User> {
  const user = await User.create(browser);
  await user.context.addInitScript((shift) => {
    const Real = Date;
    window.Date = new Proxy(Real, {
      construct: (_, args: []) => (args.length > 0 ? new Real(...args) : new Real(Real.now() + shift)),
      get: (target, key, receiver) => (key === "now" ? () => Real.now() + shift : Reflect.get(target, key, receiver)),
    });
  }, shift);
  return user;
}

/** Returns by how much the breath is ahead of the machine's clock, in ms of the cycle. */
function phase(page: Page): Promise<number> {
  return page.evaluate((cycle) => {
    const [animation] = document.querySelector("#circle")!.getAnimations();
    const time = performance.timeOrigin + Number(document.timeline.currentTime);
    return (((Number(animation!.currentTime) - time) % cycle) + cycle) % cycle;
  }, CYCLE);
}

test("browsers whose clocks are ten minutes ahead and behind breathe within 50 ms of each other", async () => {
  const users = await Promise.all([10 * MINUTE + 7_000, -10 * MINUTE, 0].map(userWithClock));
  const pages = await Promise.all(users.map((user) => RoomPage.open(user, hub.url, "breath")));
  await eventually(async () => {
    // Each wake asks the hub for its time again; the best answer counts.
    const phases = await Promise.all(
      pages.map(async ({ page }) => {
        await page.evaluate(() => void dispatchEvent(new Event("online")));
        return await phase(page);
      }),
    );
    const apart = phases.map((other) => Math.abs(other - phases[0]!)).map((gap) => Math.min(gap, CYCLE - gap));
    expect(Math.max(...apart)).toBeLessThan(50);
  });
  await Promise.all(users.map((user) => user.close()));
});

test.each([
  ["ten minutes ahead", 10 * MINUTE],
  ["ten minutes behind", -10 * MINUTE],
  ["eight days behind", -8 * DAY],
])("page views of a device that is %s are stored with the right time", async (name, shift) => {
  const user = await userWithClock(shift);
  const room = name.replaceAll(" ", "-");
  await RoomPage.open(user, hub.url, room);
  await eventually(async () => {
    await hub.flush();
    const rows = hub.rows<{ at: number }>(`SELECT at FROM page_views WHERE path = '/room/${room}'`);
    expect(rows).toHaveLength(1);
    expect(Math.abs(rows[0]!.at - Date.now())).toBeLessThan(MINUTE);
  });
  await user.close();
});
