/** What pages have to load, measured on what a build makes now, whatever lies in `dist`. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { expect, test, vi } from "vitest";
import { build, type Rollup } from "vite";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The sizes in bytes, gzipped as small as gzip can, of all files of one build. */
async function sizes(mode: string): Promise<Record<string, number>> {
  vi.stubEnv("NODE_ENV", "production"); // as the build has it; for tests React's JSX is another one
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

test("the module is at most 4 KB, and React finds nothing of it in its own entry", async () => {
  const built = await sizes("production");
  expect(Object.keys(built).sort()).toEqual(["index.js", "react.js"]);
  expect(built["index.js"]).toBeLessThanOrEqual(4_000);
  expect(built["react.js"]).toBeLessThanOrEqual(1_000);
});

test("the script is one file of at most 4 KiB", async () => {
  const built = await sizes("script");
  expect(Object.keys(built)).toEqual(["breathing-room.js"]);
  expect(built["breathing-room.js"]).toBeLessThanOrEqual(4_096);
});
