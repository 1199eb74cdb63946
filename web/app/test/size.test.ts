// Script sizes of the built pages. Needs `npm run build`.

import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";

const built = (path: string): Buffer => readFileSync(new URL(`../dist/${path}`, import.meta.url));

/** Total size in bytes of a page's scripts, each gzipped at level 9. */
function scriptSize(page: string): number {
  const scripts = new Set(built(page).toString().match(/\/assets\/[^"]+\.js/g));
  expect(scripts.size).toBeGreaterThan(0);
  return [...scripts].reduce((sum, path) => sum + gzipSync(built(path.slice(1)), { level: 9 }).length, 0);
}

test("dashboard scripts are at most 60 KB", () => {
  expect(scriptSize("index.html")).toBeLessThanOrEqual(60_000);
});

test("room page scripts are at most 15 KB", () => {
  expect(scriptSize("room.html")).toBeLessThanOrEqual(15_000);
});

test("pages have no inline code, as the Content-Security-Policy requires", () => {
  for (const page of ["index.html", "room.html", "token.html"]) {
    expect(built(page).toString()).not.toMatch(/<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|data:/);
  }
});
