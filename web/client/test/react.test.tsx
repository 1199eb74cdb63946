// @vitest-environment happy-dom

import { act, type ReactNode, StrictMode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type MediaWatch, type Presence, PresenceProvider, usePresence, useWatch } from "../src/react.js";
import { BrowserSocket, TestHub } from "./test-hub.js";

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
function Counts() {
  presence = usePresence();
  renders++;
  return `${presence.state} ${presence.present}`;
}

/** Waits until the page shows `text`. */
const shows = (text: string): Promise<void> =>
  act(() => vi.waitFor(() => expect(document.body.textContent).toBe(text)));

test("mounted provider opens one socket, under StrictMode too", async () => {
  render(<Counts />);
  expect(document.body.textContent).toBe("connecting 0");
  const session = await hub.session(1);
  session.welcome();
  await shows("open 3");
  expect(presence).toMatchObject({ moods: { calm: 1 }, vocabulary: ["calm", "joy"], mood: null });
  act(() => presence.setMood("joy"));
  expect(presence.mood).toBe("joy");
  expect(await session.receive(1)).toEqual([{ type: "mood", mood: "joy" }]);
  const before = renders;
  render(<Counts />);
  expect(renders - before).toBeLessThanOrEqual(2); // StrictMode renders twice
  expect(hub.sessions).toHaveLength(1);
  act(() => root.render(null));
  expect(await session.closed).toBe(1000);
});

test("room change opens a new socket and clears the counts", async () => {
  render(<Counts />);
  const session = await hub.session(1);
  session.welcome();
  await shows("open 3");
  render(<Counts />, "garden");
  expect(document.body.textContent).toBe("connecting 0");
  expect(await session.closed).toBe(1000);
  expect((await hub.session(2)).path).toBe("/rooms/garden/socket?features=own-mood");
});

let watch: MediaWatch;
function Player() {
  watch = useWatch("sunrise");
  return <audio ref={watch.ref} />;
}

test("watch session pauses when its component unmounts: the content has not ended", async () => {
  render(<Player />);
  const session = await hub.session(1);
  session.welcome();
  await act(() => vi.waitFor(() => (watch.play(0), expect(session.received).toHaveLength(1))));
  render(null);
  expect((await session.receive(2)).map(({ state }) => state)).toEqual(["playing", "paused"]);
});

test("watch session follows its media element", async () => {
  render(<Player />);
  const session = await hub.session(1);
  session.welcome();
  const audio = document.querySelector("audio")!;
  audio.dispatchEvent(new Event("playing"));
  await session.receive(1);
  audio.dispatchEvent(new Event("pause"));
  expect((await session.receive(2)).map(({ content, state }) => [content, state])).toEqual([
    ["sunrise", "playing"],
    ["sunrise", "paused"],
  ]);
});

test("server rendering shows the initial state", () => {
  const html = renderToString(
    <PresenceProvider room="lobby">
      <Counts />
      <Player />
    </PresenceProvider>,
  );
  expect(html).toBe("connecting 0<audio></audio>");
});
