/** Bundle sizes, measured on a fresh build instead of `dist`. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { expect, test, vi } from "vitest";
import { build, type Rollup } from "vite";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The size in bytes of each file of a build, gzipped at level 9. */
async function sizes(mode: string): Promise<Record<string, number>> {
  vi.stubEnv("NODE_ENV", "production"); // as in a build; vitest's default selects React's development JSX
  const [{ output }] = (await build({
    root,
    mode,
    logLevel: "silent",
    build: { write: false },
  })) as [Rollup.RollupOutput];
  return Object.fromEntries(
    output.map((file) => [
      file.fileName,
      gzipSync("code" in file ? file.code : file.source, { level: 9 }).length,
    ]),
  );
}

test("module is at most 6 KiB, and the React entry does not include it", async () => {
  const built = await sizes("production");
  expect(Object.keys(built).sort()).toEqual(["index.js", "react.js"]);
  expect(built["index.js"]).toBeLessThanOrEqual(6_144);
  expect(built["react.js"]).toBeLessThanOrEqual(1_200);
});

// What the script has more than the module, the attributes with their plural forms, costs 300 bytes.
test("script is one file of at most 6.3 KiB", async () => {
  const built = await sizes("script");
  expect(Object.keys(built)).toEqual(["breathing-room.js"]);
  expect(built["breathing-room.js"]).toBeLessThanOrEqual(6_450);
});

test("React entry begins with the directive for server components", async () => {
  vi.stubEnv("NODE_ENV", "production");
  const [{ output }] = (await build({ root, logLevel: "silent", build: { write: false } })) as [Rollup.RollupOutput];
  const entry = output.find(({ fileName }) => fileName === "react.js") as Rollup.OutputChunk;
  expect(entry.code).toMatch(/^"use client";\s*import/);
});
