// @vitest-environment happy-dom

import { act, type ReactNode, StrictMode, useEffect } from "react";
import { createRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  type MediaWatch,
  type Presence,
  PresenceProvider,
  type RoomActions,
  usePresence,
  useRoom,
  useWatch,
} from "../src/react.js";
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
  expect((await hub.session(2)).path).toBe("/rooms/garden/socket?features=own-mood,own-sit,keepalive");
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

test("watch session ends when its media ends, also if the component unmounts then", async () => {
  render(<Player />);
  const session = await hub.session(1);
  session.welcome();
  const audio = document.querySelector("audio")!;
  await act(() => vi.waitFor(() => (audio.dispatchEvent(new Event("playing")), expect(session.received).toHaveLength(1))));
  audio.dispatchEvent(new Event("ended"));
  render(null);
  expect((await session.receive(2)).map(({ state }) => state)).toEqual(["playing", "ended"]);
});

let actions: RoomActions;
let actionRenders = 0;
let presentRenders = 0;
function Buttons() {
  actions = useRoom();
  actionRenders++;
  return null;
}
function Present() {
  presentRenders++;
  return usePresence((room) => room.present);
}

/** Renders again with each change of a mood. */
function Watching() {
  watch = useWatch("sunrise");
  usePresence((room) => room.moods.joy);
  return null;
}

test("functions are stable, and a component renders only for what it uses", async () => {
  render(
    <>
      <Watching />
      <Buttons />
      <Present />
      <Counts />
    </>,
  );
  const session = await hub.session(1);
  session.welcome();
  await shows("3open 3");
  const first = { actions, watch, setMood: presence.setMood, pageView: presence.pageView };
  const [buttons, present] = [actionRenders, presentRenders];
  for (let n = 0; n < 5; n++) session.send({ type: "presence", present: 3, moods: { joy: n } });
  await act(() => vi.waitFor(() => expect(presence.moods).toEqual({ joy: 4 })));
  expect([actionRenders, presentRenders]).toEqual([buttons, present]);
  expect(presence.setMood).toBe(first.setMood);
  expect(presence.pageView).toBe(first.pageView);
  expect(actions).toBe(first.actions);
  expect(watch).toBe(first.watch);
});

test("what an effect does before the room is joined is done when it is", async () => {
  function Page() {
    const { pageView } = useRoom();
    useEffect(() => pageView("/about"), [pageView]);
    return null;
  }
  act(() =>
    root.render(
      <PresenceProvider hub={hub.address} room="lobby" visitor="ann">
        <Page />
      </PresenceProvider>,
    ),
  );
  const session = await hub.session(1);
  session.welcome();
  expect(await session.receive(1)).toMatchObject([{ type: "page-view", path: "/about" }]);
});

test("a sit is in the presence", async () => {
  render(<Counts />);
  const session = await hub.session(1);
  session.welcome();
  await shows("open 3");
  act(() => presence.sit({ minutes: 20 }));
  expect(presence.currentSit!.remaining).toBeGreaterThan(0);
  expect(await session.receive(1)).toMatchObject([{ type: "sit" }]);
});

test("a new token text is sent at once", async () => {
  const show = (token: string) =>
    act(() =>
      root.render(
        <PresenceProvider hub={hub.address} room="lobby" visitor="ann" token={token}>
          <Counts />
        </PresenceProvider>,
      ),
    );
  show("first");
  const session = await hub.session(1);
  session.welcome();
  await shows("open 3");
  show("second");
  expect(await session.receive(1)).toEqual([{ type: "token", token: "second" }]);
});

test("outside of a provider, the functions do nothing", () => {
  act(() => root.render(<Buttons />));
  actions.setMood("joy");
  expect(hub.sessions).toHaveLength(0);
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
