/** Two builds: modules for bundlers, and (mode "script") one classic script for pages without a bundler. */

import { defineConfig } from "vite";

export default defineConfig(({ mode }) => ({
  build: {
    target: "es2022",
    emptyOutDir: mode !== "script",
    lib:
      mode === "script"
        ? {
            entry: "src/script.ts",
            formats: ["iife"],
            name: "BreathingRoom",
            fileName: () => "breathing-room.js",
          }
        : { entry: ["src/index.ts", "src/react.tsx"], formats: ["es"] },
    rolldownOptions: {
      optimization: { inlineConst: { mode: "all", pass: 3 } },
      // The React entry imports the library by its package name, so that both share one copy.
      external: ["@breathing-room/client", "react", "react/jsx-runtime"],
      output: {
        minify: true,
        // With `const`, the minifier inlines the constants of modules.
        topLevelVar: false,
        comments: false,
        generatedCode: { symbols: false },
        // Frameworks with server components read it. The bundler removes directives of modules.
        postBanner: ({ name }) => (name === "react" ? '"use client";' : ""),
      },
    },
  },
}));
