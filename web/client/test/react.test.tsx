// @vitest-environment happy-dom

import { act, type ReactNode, StrictMode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type MediaWatch, type Presence, PresenceProvider, usePresence, useWatch } from "../src/react.js";
import { BrowserSocket, TestHub } from "./hub.js";

let hub: TestHub;
let root: Root;

beforeEach(async () => {
  vi.stubGlobal("WebSocket", BrowserSocket);
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  localStorage.clear();
  hub = await TestHub.open();
  root = createRoot(document.body);
});

afterEach(async () => {
  act(() => root.unmount());
  await hub.close();
  vi.unstubAllGlobals();
});

const render = (children: ReactNode, room = "lobby"): void =>
  act(() =>
    root.render(
      <StrictMode>
        <PresenceProvider hub={hub.address} room={room} visitor="ann">
          {children}
        </PresenceProvider>
      </StrictMode>,
    ),
  );

let presence: Presence;
let renders = 0;
function Shown() {
  presence = usePresence();
  renders++;
  return `${presence.state} ${presence.present}`;
}

/** Waits until the page shows this. */
const shows = (text: string): Promise<void> =>
  act(() => vi.waitFor(() => expect(document.body.textContent).toBe(text)));

test("a mounted provider is one socket, under StrictMode too", async () => {
  render(<Shown />);
  expect(document.body.textContent).toBe("connecting 0");
  const member = await hub.member(1);
  member.welcome();
  await shows("open 3");
  expect(presence).toMatchObject({ moods: { calm: 1 }, vocabulary: ["calm", "joy"], mood: null });
  act(() => presence.setMood("joy"));
  expect(presence.mood).toBe("joy");
  expect(await member.hears(1)).toEqual([{ type: "mood", mood: "joy" }]);
  const before = renders;
  render(<Shown />);
  expect(renders - before).toBeLessThanOrEqual(2); // StrictMode renders twice, and nothing has changed
  expect(hub.members).toHaveLength(1);
  act(() => root.render(null));
  expect(await member.closed).toBe(1000);
});

test("another room is another socket, and the old counts are gone", async () => {
  render(<Shown />);
  const member = await hub.member(1);
  member.welcome();
  await shows("open 3");
  render(<Shown />, "garden");
  expect(document.body.textContent).toBe("connecting 0");
  expect(await member.closed).toBe(1000);
  expect((await hub.member(2)).path).toBe("/rooms/garden/socket");
});

let watch: MediaWatch;
function Player() {
  watch = useWatch("sunrise");
  return <audio ref={watch.ref} />;
}

test("a watch session ends with its component", async () => {
  render(<Player />);
  const member = await hub.member(1);
  member.welcome();
  await act(() => vi.waitFor(() => (watch.play(0), expect(member.heard).toHaveLength(1))));
  render(null);
  expect((await member.hears(2)).map(({ state }) => state)).toEqual(["playing", "ended"]);
});

test("a media element is followed", async () => {
  render(<Player />);
  const member = await hub.member(1);
  member.welcome();
  const audio = document.querySelector("audio")!;
  audio.dispatchEvent(new Event("playing"));
  await member.hears(1);
  audio.dispatchEvent(new Event("pause"));
  expect((await member.hears(2)).map(({ content, state }) => [content, state])).toEqual([
    ["sunrise", "playing"],
    ["sunrise", "paused"],
  ]);
});

test("a server renders a room that nobody is in yet", () => {
  const html = renderToString(
    <PresenceProvider room="lobby">
      <Shown />
      <Player />
    </PresenceProvider>,
  );
  expect(html).toBe("connecting 0<audio></audio>");
});
