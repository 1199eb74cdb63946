import { expect, test } from "vitest";
import { byteLength, cut, toJson } from "../src/text.js";

test("a text is cut at a character boundary", () => {
  expect(cut("あ".repeat(57), 512)).toBe("あ".repeat(57));
  expect(cut("あ".repeat(200), 512)).toBe("あ".repeat(170));
  expect(cut(`${"x".repeat(9)}😀`, 12)).toBe("x".repeat(9));
  expect(cut("abc", 3)).toBe("abc");
});

test("what the hub rejects is removed: U+0000 and halves of surrogate pairs", () => {
  expect(cut("a\0b\ud83dc\ude00d😀", 100)).toBe("abcd😀");
});

test("the path and the content have their own limit", () => {
  const long = "x".repeat(3_000);
  const { path, content, title } = JSON.parse(toJson({ path: long, content: long, title: long }));
  expect([path.length, content.length, title.length]).toEqual([512, 512, 1_024]);
});

test("an event of characters that JSON escapes is below the limit of a message", () => {
  for (const text of ['"', "\u0001", "\\"]) {
    const long = text.repeat(2_000);
    const json = toJson({ id: "7".repeat(36), path: long, title: long, referrer: long, props: { a: long } });
    expect(byteLength(json)).toBeLessThanOrEqual(4_070);
    expect(JSON.parse(json).path.length).toBeGreaterThan(50);
  }
});
