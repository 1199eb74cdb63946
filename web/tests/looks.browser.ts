// What every page owes to everybody: no complaint, no inline anything, and nobody shut out.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import type AxeCore from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Person, launch } from "./support/browser";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PHONE = { width: 390, height: 844 };
const DESK = { width: 1440, height: 900 };

declare const axe: typeof AxeCore;

let browser: Browser;
let hub: Hub;
let adminsHub: Hub;

beforeAll(async () => {
  [browser, hub, adminsHub] = await Promise.all([launch(), Hub.start(), Hub.start({ DASHBOARD: "admin" })]);
});
afterAll(async () => {
  await browser.close();
  await Promise.all([hub.dispose(), adminsHub.dispose()]);
});

async function expectNoBarrier(page: Page): Promise<void> {
  const violations = await page.evaluate(async () => {
    const { violations } = await axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  });
  expect(violations).toEqual([]);
}

async function expectNoSideways(page: Page): Promise<void> {
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
}

describe.each(["light", "dark"] as const)("in %s", (colorScheme) => {
  test.each([["phone", PHONE], ["desk", DESK]])("the room page, on a %s", async (_, viewport) => {
    const [ann, bob] = await Promise.all([Person.come(browser, { colorScheme, viewport }), Person.come(browser)]);
    await ann.context.addInitScript(AXE);
    const bobs = await RoomPage.enter(bob, hub.url);
    await bobs.pick("joy");
    const anns = await RoomPage.enter(ann, hub.url);
    await anns.pick("calm");
    await anns.expectMood("calm", 1);
    await expectNoBarrier(anns.page);
    await expectNoSideways(anns.page);
    await Promise.all([ann.goes(), bob.goes()]);
  });

  test.each([["phone", PHONE], ["desk", DESK]])("the dashboard, on a %s", async (_, viewport) => {
    const [ann, viewer] = await Promise.all([Person.come(browser), Person.come(browser, { colorScheme, viewport })]);
    await viewer.context.addInitScript(AXE);
    await (await RoomPage.enter(ann, hub.url)).pick("love");
    const page = await viewer.open(hub.url);
    await page.getByRole("row", { name: "love" }).waitFor();
    await page.locator('#history[aria-busy="false"]').waitFor();
    const tables = page.getByText("Numbers", { exact: true });
    for (const table of await tables.all()) if (await table.isVisible()) await table.click();
    await expectNoBarrier(page);
    await expectNoSideways(page);
    await Promise.all([ann.goes(), viewer.goes()]);
  });

  test("the question for the token", async () => {
    const admin = await Person.come(browser, { colorScheme, viewport: PHONE });
    await admin.context.addInitScript(AXE);
    const page = await admin.open(adminsHub.url);
    await page.getByRole("button", { name: "Open the dashboard" }).waitFor();
    await expectNoBarrier(page);
    await admin.goes(/401/);
  });
});

test("the policy is not only written but held: nothing inline runs, and no other site frames the dashboard", async () => {
  const ann = await Person.come(browser);
  const { page } = await RoomPage.enter(ann, hub.url);
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.ran = true";
    document.head.append(script);
    return "ran" in window;
  });
  expect(ran).toBe(false);
  const blocked = await page.evaluate(
    () =>
      new Promise<boolean>((resolve) => {
        const frame = document.createElement("iframe");
        frame.onload = () => resolve(frame.contentDocument === null);
        frame.src = "/";
        document.body.append(frame);
      }),
  );
  expect(blocked).toBe(true);
  await ann.goes(/policy|Content Security Policy|Refused/i);
});
