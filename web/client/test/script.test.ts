// @vitest-environment happy-dom

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { BrowserSocket, TestHub } from "./test-hub.js";

let hub: TestHub;

beforeEach(async () => {
  vi.stubGlobal("WebSocket", BrowserSocket);
  vi.resetModules(); // the script runs once per page
  localStorage.clear();
  document.documentElement.lang = "en";
  hub = await TestHub.open();
});

afterEach(async () => {
  await hub.close();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** Runs the script as a `<script src data-…>` element. */
async function run(data: Record<string, string | undefined>) {
  const script = document.createElement("script");
  vi.spyOn(script, "src", "get").mockReturnValue(`${hub.address}/below/client/breathing-room.js`);
  Object.assign(script.dataset, data);
  vi.spyOn(document, "currentScript", "get").mockReturnValue(script);
  return import("../src/script.js");
}

const shows = (text: string): Promise<void> => vi.waitFor(() => expect(document.body.textContent).toBe(text));

test("script tag joins a room of its own hub and shows the counts", async () => {
  document.body.innerHTML = '<b data-breathing-room="present"></b> <i data-breathing-room="state"></i>';
  const { room } = await run({ room: "lobby", visitor: "ann", pageView: "" });
  const session = await hub.session(1);
  expect(session.path).toBe("/below/rooms/lobby/socket?features=own-mood,own-sit,keepalive");
  session.welcome();
  await shows("3 open");
  expect(await session.receive(1)).toMatchObject([{ type: "page-view", path: location.pathname }]);
  room!.leave();
  expect(document.body.textContent).toBe(" closed");
});

function snippetOf(readme: string): string {
  return /```html\n([\s\S]*?)```/.exec(readFileSync(join(import.meta.dirname, readme), "utf8"))![1]!;
}

test("the snippet of both READMEs has a placeholder and plural forms", async () => {
  const snippet = snippetOf("../README.md");
  expect(snippetOf("../../../README.md")).toBe(snippet);
  document.body.innerHTML = snippet.replace(/<script[\s\S]*?<\/script>\n/, "").trim();
  const { room } = await run({ room: "lobby", visitor: "ann" });
  expect(document.body.textContent).toBe("Join us");
  document.dispatchEvent(new Event("DOMContentLoaded", { bubbles: true }));
  const session = await hub.session(1);
  expect(document.body.textContent).toBe("Join us");
  session.welcome({ present: 1 });
  await shows("1 person is here");
  session.send({ type: "presence", present: 2, moods: {} });
  await shows("2 people are here");
  session.socket.terminate();
  await shows("Join us");
  room!.leave();
});

test("plural forms follow the language of the element", async () => {
  document.body.innerHTML =
    '<b lang="pl" data-breathing-room="present" data-one="# osoba" data-few="# osoby" data-many="# osób"></b>';
  const { room } = await run({ room: "lobby" });
  const session = await hub.session(1);
  session.welcome({ present: 1 });
  for (const [present, text] of [
    [1, "1 osoba"],
    [3, "3 osoby"],
    [5, "5 osób"],
  ] as const) {
    session.send({ type: "presence", present, moods: {} });
    await shows(text);
  }
  room!.leave();
});

test("without a language the plural forms are those of English, whatever the browser's is", async () => {
  document.documentElement.removeAttribute("lang");
  const rules = Intl.PluralRules;
  vi.spyOn(Intl, "PluralRules").mockImplementation(function (language) {
    return new rules(language ?? "ja");
  } as typeof rules);
  document.body.innerHTML = '<b data-breathing-room="present" data-one="# person" data-other="# people"></b>';
  const { room } = await run({ room: "lobby" });
  (await hub.session(1)).welcome({ present: 1 });
  await shows("1 person");
  room!.leave();
});

test("a language that is none shows the general form", async () => {
  document.body.innerHTML = '<b lang="e_" data-breathing-room="present" data-other="# here"></b>';
  const { room } = await run({ room: "lobby" });
  (await hub.session(1)).welcome({ present: 1 });
  await shows("1 here");
  room!.leave();
});

test("elements have the state for styles", async () => {
  document.body.innerHTML = '<b data-breathing-room="present"></b>';
  const { room } = await run({ room: "lobby" });
  const session = await hub.session(1);
  session.answer = undefined;
  session.welcome();
  await shows("3");
  expect(document.querySelector("[data-state=open]")).not.toBeNull();
  document.dispatchEvent(new Event("resume"));
  expect(document.querySelector("[data-state=checking]")!.textContent).toBe("3");
  room!.leave();
});

test("data-hub has one address, or several", async () => {
  const closed = await TestHub.open();
  const { address } = closed;
  await closed.close();
  const { room } = await run({ room: "lobby", hub: ` ${address}, ${hub.address}/below\n` });
  expect((await hub.session(1)).path).toMatch(/^\/below\/rooms\/lobby\/socket/);
  room!.leave();
});

test("script tag without data-room does not join", async () => {
  const { joinRoom, room } = await run({});
  expect(room).toBeUndefined();
  expect(joinRoom).toBeTypeOf("function");
});
