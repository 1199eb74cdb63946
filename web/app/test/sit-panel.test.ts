// @vitest-environment happy-dom
// The sit of the room page, in a document with its elements, and with a room that the test changes.

import type { Room, RoomState } from "@breathing-room/client";
import { beforeEach, expect, test } from "vitest";
import { SitPanel } from "../src/room/sit-panel";

let room: EventTarget & { state: RoomState; currentSit: EventTarget | null };
let announced: string[];

const note = () => document.querySelector("#sit-note")!.textContent;
const offers = () => [...document.querySelectorAll<HTMLButtonElement>("#sit-offers button")];

function setState(state: RoomState): void {
  room.state = state;
  room.dispatchEvent(new Event("state"));
}

/** Begins a sit, as the client does. Returns its handle. */
function begin(confirmed = false) {
  const sit = Object.assign(new EventTarget(), { remaining: 600_000, confirmed });
  room.currentSit = sit;
  room.dispatchEvent(new Event("sit"));
  return sit;
}

function confirm(sit: ReturnType<typeof begin>): void {
  sit.confirmed = true;
  sit.dispatchEvent(new Event("change"));
}

beforeEach(() => {
  document.body.innerHTML = `<div id="sit-offer"><span id="sit-offers"></span></div><input id="bell" type="checkbox">
    <div id="sit-running"><span id="sit-left"></span><button id="sit-end"></button></div><p id="sit-note"></p>`;
  announced = [];
  room = Object.assign(new EventTarget(), { state: "open" as RoomState, currentSit: null });
  new SitPanel(room as unknown as Room, (text) => announced.push(text));
});

test("sit offers are disabled while the room is closed", () => {
  expect(offers().some(({ disabled }) => disabled)).toBe(false);
  setState("closed");
  expect(offers().every(({ disabled }) => disabled)).toBe(true);
  setState("open");
  expect(offers().some(({ disabled }) => disabled)).toBe(false);
});

test("a sit promises the place in the room only after the hub has confirmed it", () => {
  const sit = begin();
  expect(note()).toBe("Waiting for the hub: your place is not held yet. Keep this page open.");
  setState("waiting");
  expect(note()).toBe("Not connected: your place is not held yet. Keep this page open.");
  setState("open");
  expect(note()).toContain("not held yet");
  confirm(sit);
  expect(note()).toBe("Your place is held: if your phone locks, you stay in the room until the sit ends.");
  setState("waiting");
  expect(note()).toBe("Not connected, but your place is held until the sit ends.");
  sit.dispatchEvent(new CustomEvent("end", { detail: { reason: "ended" } }));
  expect(note()).not.toContain("is held");
});

test("a new sit is not confirmed by the one before", () => {
  begin(true);
  expect(note()).toContain("Your place is held");
  begin();
  expect(note()).toContain("not held yet");
});

test("a sit of another tab is shown", () => {
  const sit = begin(true);
  expect(document.querySelector("#sit-left")!.textContent).toBe("Sitting, 10 minutes left");
  expect(document.querySelector<HTMLElement>("#sit-offer")!.hidden).toBe(true);
  sit.dispatchEvent(new CustomEvent("end", { detail: { reason: "ended" } }));
  expect(document.querySelector<HTMLElement>("#sit-offer")!.hidden).toBe(false);
});

test("a refused sit names no reason that is not known", () => {
  begin().dispatchEvent(new CustomEvent("end", { detail: { reason: "refused" } }));
  expect(note()).toBe("The hub cannot hold your place now. You are in the room while this page is open.");
  expect(announced.at(-1)).toBe(note());
});
