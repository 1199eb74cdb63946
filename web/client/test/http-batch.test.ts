import { expect, test } from "vitest";
import { toBatches, toBody } from "../src/http-batch.js";
import { uuid } from "../src/id.js";

const event = (type: string, more = "") => ({ text: JSON.stringify({ type, id: "x", more }) });

test("each kind of event has its own path and one JSON array", () => {
  const all = toBatches([event("page-view"), event("watch"), event("watch")]);
  expect(all.map(({ path, events }) => [path, events.length])).toEqual([
    ["page-view", 1],
    ["watch-session", 2],
  ]);
  expect(JSON.parse(toBody(all[1]!.events))).toEqual([
    { type: "watch", id: "x", more: "" },
    { type: "watch", id: "x", more: "" },
  ]);
});

test("events of different rooms or visitors have different bodies: the hub refuses a body whole", () => {
  const of = (room: string, visitor: string) => ({ text: JSON.stringify({ type: "page-view", room, visitor }) });
  const all = toBatches([of("a", "ann"), of("b", "ann"), of("a", "ben"), of("a", "ann")]);
  expect(all.map(({ events }) => events.length)).toEqual([2, 1, 1]);
});

test("the contents of an event do not change its kind", () => {
  expect(toBatches([event("page-view", '{"type":"watch"')])[0]!.path).toBe("page-view");
});

test("each body stays below the hub's limits", () => {
  const smallest = { type: "page-view", id: uuid(), room: "a", visitor: "a", path: "/", at: Date.now() };
  for (const title of [undefined, "x".repeat(1_024), "あ".repeat(1_024)]) {
    const all = toBatches(Array.from({ length: 300 }, () => ({ text: JSON.stringify({ ...smallest, title }) })));
    expect(all.flatMap(({ events }) => events)).toHaveLength(300);
    for (const { events } of all) {
      expect(events.length).toBeLessThanOrEqual(100);
      expect(Buffer.byteLength(toBody(events))).toBeLessThanOrEqual(64 * 1024);
    }
  }
});

test("no events make no batch", () => {
  expect(toBatches([])).toEqual([]);
});
