// What a page weighs, as built. `npm run build` comes first.

import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";

const built = (path: string): Buffer => readFileSync(new URL(`../dist/${path}`, import.meta.url));

/** All scripts of a page, compressed each by itself, as they are sent. */
function weight(page: string): number {
  const scripts = new Set(built(page).toString().match(/\/assets\/[^"]+\.js/g));
  expect(scripts.size).toBeGreaterThan(0);
  return [...scripts].reduce((sum, path) => sum + gzipSync(built(path.slice(1)), { level: 9 }).length, 0);
}

test("the dashboard's script is at most 60 KB", () => {
  expect(weight("index.html")).toBeLessThanOrEqual(60_000);
});

test("the room's is at most 15 KB, for it is opened on the go", () => {
  expect(weight("room.html")).toBeLessThanOrEqual(15_000);
});

test("nothing is inline, so that the policy can be strict", () => {
  for (const page of ["index.html", "room.html", "token.html"]) {
    expect(built(page).toString()).not.toMatch(/<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|data:/);
  }
});
