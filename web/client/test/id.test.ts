import { expect, test } from "vitest";
import { randomHex, uuid } from "../src/id.js";

test("UUID has version 7 and starts with its creation time", () => {
  const id = uuid(0x0123_4567_89ab);
  expect(id).toMatch(/^01234567-89ab-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("UUIDs sort by creation time", () => {
  const ids = [5, 1_700_000_000_000, 1_700_000_000_001, 2_000_000_000_000].map((time) => uuid(time));
  expect([...ids].sort()).toEqual(ids);
});

test("ids are unique", () => {
  const ids = Array.from({ length: 1_000 }, () => uuid(7));
  expect(new Set(ids).size).toBe(1_000);
  expect(randomHex()).toMatch(/^[0-9a-f]{32}$/);
});
