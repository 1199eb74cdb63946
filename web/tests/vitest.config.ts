// The tests in a real browser against a real hub. `make test` builds both first.

import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  test: {
    include: ["*.browser.ts"],
    globalSetup: "support/chromium.ts",
    // Two browsers at once; more would only make each other wait.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
