/** Unit tests of both workspaces. The browser tests have their own configuration in `tests/`. */

import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: /^@breathing-room\/client$/, replacement: source("client/src/index.ts") },
      { find: /^@breathing-room\/client\/react$/, replacement: source("client/src/react.tsx") },
    ],
  },
  test: {
    include: ["{client,app}/**/*.test.{ts,tsx}"],
  },
});
