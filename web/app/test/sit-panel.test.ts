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
function begin(): EventTarget {
  const sit = Object.assign(new EventTarget(), { remaining: 600_000 });
  room.currentSit = sit;
  room.dispatchEvent(new Event("sit"));
  return sit;
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

test("a sit promises the place in the room only while it is joined", () => {
  const sit = begin();
  expect(note()).toContain("you stay in the room");
  setState("waiting");
  expect(note()).toContain("Not connected");
  setState("open");
  expect(note()).toContain("you stay in the room");
  sit.dispatchEvent(new CustomEvent("end", { detail: { reason: "ended" } }));
});

test("a refused sit names no reason that is not known", () => {
  begin().dispatchEvent(new CustomEvent("end", { detail: { reason: "refused" } }));
  expect(note()).toBe("The hub cannot hold a place for you now. You are in the room while this page is open.");
  expect(announced.at(-1)).toBe(note());
});
