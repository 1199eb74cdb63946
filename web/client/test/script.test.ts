// @vitest-environment happy-dom

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { BrowserSocket, TestHub } from "./hub.js";

let hub: TestHub;

beforeEach(async () => {
  vi.stubGlobal("WebSocket", BrowserSocket);
  vi.resetModules(); // the script runs anew on each page
  localStorage.clear();
  hub = await TestHub.open();
});

afterEach(async () => {
  await hub.close();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** Runs the script as the page's own `<script src data-…>`. */
async function run(data: Record<string, string>) {
  const script = document.createElement("script");
  vi.spyOn(script, "src", "get").mockReturnValue(`${hub.address}/below/client/breathing-room.js`);
  Object.assign(script.dataset, data);
  vi.spyOn(document, "currentScript", "get").mockReturnValue(script);
  return import("../src/script.js");
}

test("two lines join a room of the script's own hub and show who is there", async () => {
  document.body.innerHTML = '<b data-breathing-room="present"></b> <i data-breathing-room="state"></i>';
  const { room } = await run({ room: "lobby", visitor: "ann", pageView: "" });
  const member = await hub.member(1);
  expect(member.path).toBe("/below/rooms/lobby/socket");
  member.welcome();
  await vi.waitFor(() => expect(document.body.textContent).toBe("3 open"));
  expect(await member.hears(1)).toMatchObject([{ type: "page-view", path: location.pathname }]);
  room!.leave();
  expect(document.body.textContent).toBe(" closed");
});

test("without a room it joins none", async () => {
  const { joinRoom, room } = await run({});
  expect(room).toBeUndefined();
  expect(joinRoom).toBeTypeOf("function");
});
