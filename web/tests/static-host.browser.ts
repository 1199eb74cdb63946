// The dashboard as static files on another origin than its hub.

import { once } from "node:events";
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ADMIN, Hub } from "./support/hub";
import { RoomPage } from "./support/room-page";
import { User, launch } from "./support/user";

const DIST = fileURLToPath(new URL("../app/dist", import.meta.url));
const TYPES: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

const host = createServer((request, response) => {
  const { pathname } = new URL(request.url!, "http://host");
  const file = join(DIST, pathname === "/" ? "index.html" : pathname);
  if (!existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
  createReadStream(file).pipe(response);
});

let browser: Browser;
let origin: string;

beforeAll(async () => {
  browser = await launch();
  host.listen(0, "127.0.0.1");
  await once(host, "listening");
  origin = `http://127.0.0.1:${(host.address() as AddressInfo).port}`;
});
afterAll(async () => {
  await browser.close();
  host.close();
  host.closeAllConnections();
});

test("dashboard on a static host shows the live state, history and health of its hub", async () => {
  const hub = await Hub.start();
  const [ann, viewer] = [await User.create(browser), await User.create(browser)];
  await RoomPage.open(ann, hub.url, "garden");
  const page = await viewer.open(`${origin}/?hub=${encodeURIComponent(hub.url)}`);
  await page.locator("#live-users").filter({ hasText: /^1$/ }).waitFor();
  await page.getByText("The hub is healthy").waitFor();
  await page.locator("#history[aria-busy=false]").waitFor();
  expect(await page.getByRole("link", { name: "garden" }).getAttribute("href")).toBe(`${hub.url}/room/garden`);
  await Promise.all([ann.close(), viewer.close()]);
  await hub.dispose();
});

test("dashboard on a static host asks for the admin token of a hub that needs one", async () => {
  const hub = await Hub.start({ DASHBOARD: "admin" });
  const viewer = await User.create(browser);
  const page = await viewer.open(`${origin}/?hub=${encodeURIComponent(hub.url)}`);
  await page.getByLabel("admin token").fill(ADMIN);
  await page.getByRole("button").click();
  await page.locator("#live-users").filter({ hasText: /^0$/ }).waitFor();
  await page.locator("#history[aria-busy=false]").waitFor();
  // The first answers, which brought the page to the form.
  await viewer.close(/401|no valid credentials/);
  await hub.dispose();
});
