import { expect, test } from "vitest";
import { body, posts } from "../src/handover.js";
import { uuid } from "../src/id.js";

const event = (type: string, more = "") => ({ text: JSON.stringify({ type, id: "x", more }) });

test("each kind goes to its own address, in one JSON array", () => {
  const all = posts([event("watch"), event("page-view"), event("watch")]);
  expect(all.map(({ path, events }) => [path, events.length])).toEqual([
    ["page-view", 1],
    ["watch-session", 2],
  ]);
  expect(JSON.parse(body(all[1]!.events))).toEqual([
    { type: "watch", id: "x", more: "" },
    { type: "watch", id: "x", more: "" },
  ]);
});

test("what is inside an event does not change its kind", () => {
  expect(posts([event("page-view", '{"type":"watch"')])[0]!.path).toBe("page-view");
});

test("no body is larger than the hub takes", () => {
  const least = { type: "page-view", id: uuid(), room: "a", visitor: "a", path: "/", at: Date.now() };
  for (const title of [undefined, "x".repeat(1_024), "あ".repeat(1_024)]) {
    const all = posts(Array.from({ length: 300 }, () => ({ text: JSON.stringify({ ...least, title }) })));
    expect(all.flatMap(({ events }) => events)).toHaveLength(300);
    for (const { events } of all) {
      expect(events.length).toBeLessThanOrEqual(100);
      expect(Buffer.byteLength(body(events))).toBeLessThanOrEqual(64 * 1024);
    }
  }
});

test("nothing makes no post", () => {
  expect(posts([])).toEqual([]);
});
