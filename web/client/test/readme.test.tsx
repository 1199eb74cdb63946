// @vitest-environment happy-dom

/** The examples of the README, compiled, type-checked and run as they are, with the address of a hub of the tests. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { act } from "react";
import { createRoot } from "react-dom/client";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { hub, useHub } from "./support.js";

useHub();

const readme = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");
let folder: string;
beforeAll(() => {
  // Below the client, so that its packages are found.
  folder = mkdtempSync(join(import.meta.dirname, "readme-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Writes the README's example in this language to a file, and returns its path. */
function example(language: "js" | "jsx", address = "https://hub.example.org"): string {
  const [, code] = new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``).exec(readme)!;
  const path = join(folder, `example.${language}`);
  writeFileSync(path, code!.replaceAll("https://hub.example.org", address));
  return path;
}

test("the examples fit the types", () => {
  const config = {
    extends: "../../tsconfig.json",
    compilerOptions: {
      allowJs: true,
      checkJs: true,
      paths: {
        "@breathing-room/client": ["../../src/index.ts"],
        "@breathing-room/client/react": ["../../src/react.tsx"],
      },
    },
    include: [example("js"), example("jsx")],
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
  const { stdout } = spawnSync("npx", ["tsc", "-p", folder], { cwd: join(folder, "../../.."), encoding: "utf8" });
  expect(stdout).toBe("");
}, 60_000);

test("the example of the module joins, sits, watches and leaves", async () => {
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  await import(/* @vite-ignore */ example("js", hub.address));
  const session = await hub.session(1);
  session.welcome();
  const sent = await session.receive(3);
  expect(new Set(sent.map(({ type }) => type))).toEqual(new Set(["mood", "sit", "page-view"]));
  expect(await session.closed).toBe(1000);
  await vi.waitFor(() => expect(log).toHaveBeenCalledWith("closed"));
  expect(log).toHaveBeenCalledWith(3, { calm: 1 });
  expect(log).toHaveBeenCalledWith("ended");
});

test("the example of React counts one page view, and renders only what changes", async () => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  const { App } = await import(/* @vite-ignore */ example("jsx", hub.address));
  const root = createRoot(document.body);
  act(() => root.render(<App />));
  const session = await hub.session(1);
  session.welcome();
  const shows = (text: string) => act(() => vi.waitFor(() => expect(document.body.textContent).toBe(text)));
  await shows("3 are here");
  for (let present = 4; present < 12; present++) {
    session.send({ type: "presence", present, moods: {} });
    await shows(`${present} are here`);
  }
  act(() => document.querySelector("p")!.click());
  document.querySelector("audio")!.dispatchEvent(new Event("playing"));
  const sent = await session.receive(3);
  expect(sent.map(({ type }) => type)).toEqual(["page-view", "mood", "watch"]);
  act(() => root.unmount());
  expect(await session.closed).toBe(1000);
  expect(session.received.map(({ type, state }) => state ?? type)).toEqual(["page-view", "mood", "playing", "paused"]);
});
