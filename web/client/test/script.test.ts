// @vitest-environment happy-dom

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { BrowserSocket, TestHub } from "./test-hub.js";

let hub: TestHub;

beforeEach(async () => {
  vi.stubGlobal("WebSocket", BrowserSocket);
  vi.resetModules(); // the script runs once per page
  localStorage.clear();
  hub = await TestHub.open();
});

afterEach(async () => {
  await hub.close();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** Runs the script as a `<script src data-…>` element. */
async function run(data: Record<string, string>) {
  const script = document.createElement("script");
  vi.spyOn(script, "src", "get").mockReturnValue(`${hub.address}/below/client/breathing-room.js`);
  Object.assign(script.dataset, data);
  vi.spyOn(document, "currentScript", "get").mockReturnValue(script);
  return import("../src/script.js");
}

test("script tag joins a room of its own hub and shows the counts", async () => {
  document.body.innerHTML = '<b data-breathing-room="present"></b> <i data-breathing-room="state"></i>';
  const { room } = await run({ room: "lobby", visitor: "ann", pageView: "" });
  const session = await hub.session(1);
  expect(session.path).toBe("/below/rooms/lobby/socket?features=own-mood");
  session.welcome();
  await vi.waitFor(() => expect(document.body.textContent).toBe("3 open"));
  expect(await session.receive(1)).toMatchObject([{ type: "page-view", path: location.pathname }]);
  room!.leave();
  expect(document.body.textContent).toBe(" closed");
});

test("script tag without data-room does not join", async () => {
  const { joinRoom, room } = await run({});
  expect(room).toBeUndefined();
  expect(joinRoom).toBeTypeOf("function");
});
