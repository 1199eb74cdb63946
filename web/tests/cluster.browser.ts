// The dashboard of a real cluster: two hubs that a NATS server connects.

import { randomUUID } from "node:crypto";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ADMIN, Hub } from "./support/hub";
import { Nats } from "./support/nats";
import { User, launch } from "./support/user";

let browser: Browser;
let nats: Nats;
let hubs: Hub[];

beforeAll(async () => {
  [browser, nats] = await Promise.all([launch(), Nats.start()]);
  const settings = { NATS_URL: nats.url, DASHBOARD: "admin" };
  hubs = await Promise.all(["ams-1", "fra-1"].map((node) => Hub.start({ ...settings, NODE: node })));
});
afterAll(async () => {
  await Promise.all(hubs.map((hub) => hub.dispose()));
  await Promise.all([nats.dispose(), browser.close()]);
});

/** Returns the cells of the table of nodes in these columns, row by row. */
async function cells(page: Page, columns: string[]): Promise<string[][]> {
  const table = page.getByRole("table", { name: "Nodes", exact: true });
  return await table.evaluate((table, columns) => {
    const head = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent);
    const rows = [...table.querySelectorAll("tbody tr")];
    return rows.map((row) => columns.map((column) => row.children[head.indexOf(column)]!.textContent));
  }, columns);
}

/** Opens the dashboard of a hub as its admin. */
async function dashboard(admin: User, hub: Hub): Promise<Page> {
  const page = await admin.open(hub.url);
  await page.getByLabel("The dashboard of this hub needs the admin token.").fill(ADMIN);
  await page.keyboard.press("Enter");
  return page;
}

test("table of nodes names the one with another history, and the command that compares it", async () => {
  const [ams, fra] = hubs as [Hub, Hub];
  const admin = await User.create(browser);
  const page = await dashboard(admin, fra);
  const columns = ["Node", "State", "Last heard", "Outbox"];
  await expect.poll(() => cells(page, columns).then((rows) => rows.map((row) => [row[0], row[1], row[3]]))).toEqual([
    ["ams-1", "live", "0"],
    ["fra-1", "live", "0"],
  ]);
  expect((await cells(page, columns)).map((row) => row[2])).toEqual([expect.stringMatching(/ ago$/), "this node"]);
  expect(await page.getByText("differs").count()).toBe(0);

  // Without NATS_URL, the import is into the file of one node only.
  const at = Date.now() - 60_000;
  await ams.import([{ type: "page-view", id: randomUUID(), room: "lobby", visitor: "ann", path: "/", at }]);
  const note = "The history of ams-1 differs from that of this node. To see in which months, run on ams-1:";
  await page.getByText(`${note} breathing-room check --with ${fra.url}`, { exact: true }).waitFor({ timeout: 45_000 });
  expect(await cells(page, ["Node", "State"])).toEqual([["ams-1", "live, other history"], ["fra-1", "live"]]);
  // A browser logs every 401, also an expected one.
  await admin.close(/401/);
});

test("reason why the log is away is above the nodes", async () => {
  const admin = await User.create(browser);
  const page = await dashboard(admin, hubs[0]!);
  await page.getByRole("table", { name: "Nodes", exact: true }).waitFor();
  await nats.kill();
  const note = "This node does not share events with the others. They wait in its outbox: the log cannot be reached.";
  await page.getByText(note, { exact: true }).waitFor({ timeout: 45_000 });
  await admin.close(/401/);
});
