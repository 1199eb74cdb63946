// Accessibility, layout and Content-Security-Policy of every page.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import type AxeCore from "axe-core";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { User, launch } from "./support/user";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room-page";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1440, height: 900 };

declare const axe: typeof AxeCore;

let browser: Browser;
let hub: Hub;
let adminHub: Hub;

beforeAll(async () => {
  [browser, hub, adminHub] = await Promise.all([launch(), Hub.start(), Hub.start({ DASHBOARD: "admin" })]);
});
afterAll(async () => {
  await browser.close();
  await Promise.all([hub.dispose(), adminHub.dispose()]);
});

async function expectNoAxeViolations(page: Page): Promise<void> {
  const violations = await page.evaluate(async () => {
    const { violations } = await axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  });
  expect(violations).toEqual([]);
}

async function expectNoHorizontalScroll(page: Page): Promise<void> {
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
}

describe.each(["light", "dark"] as const)("in %s", (colorScheme) => {
  test.each([["phone", PHONE], ["desktop", DESKTOP]])("room page on a %s is accessible", async (_, viewport) => {
    const [ann, bob] = await Promise.all([User.create(browser, { colorScheme, viewport }), User.create(browser)]);
    await ann.context.addInitScript(AXE);
    const bobPage = await RoomPage.open(bob, hub.url);
    await bobPage.pick("joy");
    const annPage = await RoomPage.open(ann, hub.url);
    await annPage.pick("calm");
    await annPage.expectMood("calm", 1);
    await expectNoAxeViolations(annPage.page);
    await expectNoHorizontalScroll(annPage.page);
    await annPage.sit(10);
    await annPage.page.getByRole("checkbox", { name: "Announce other people" }).focus();
    await expectNoAxeViolations(annPage.page);
    await expectNoHorizontalScroll(annPage.page);
    await Promise.all([ann.close(), bob.close()]);
  });

  test.each([["phone", PHONE], ["desktop", DESKTOP]])("dashboard on a %s is accessible", async (_, viewport) => {
    const [ann, viewer] = await Promise.all([User.create(browser), User.create(browser, { colorScheme, viewport })]);
    await viewer.context.addInitScript(AXE);
    await (await RoomPage.open(ann, hub.url)).pick("love");
    const page = await viewer.open(hub.url);
    await page.getByRole("row", { name: "love" }).waitFor();
    await page.locator('#history[aria-busy="false"]').waitFor();
    const tables = page.getByText("Numbers", { exact: true });
    for (const table of await tables.all()) if (await table.isVisible()) await table.click();
    await expectNoAxeViolations(page);
    await expectNoHorizontalScroll(page);
    await Promise.all([ann.close(), viewer.close()]);
  });

  test("token form is accessible", async () => {
    const admin = await User.create(browser, { colorScheme, viewport: PHONE });
    await admin.context.addInitScript(AXE);
    const page = await admin.open(adminHub.url);
    await page.getByRole("button", { name: "Open the dashboard" }).waitFor();
    await expectNoAxeViolations(page);
    await admin.close(/401/);
  });
});

test("Content-Security-Policy blocks inline scripts and framing of the dashboard", async () => {
  const ann = await User.create(browser);
  const { page } = await RoomPage.open(ann, hub.url);
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
  await ann.close(/policy|Content Security Policy|Refused/i);
});
