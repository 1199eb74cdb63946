// Builds the three pages and the client library into dist/. The hub embeds this folder.

import { copyFileSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { type Plugin, build, defineConfig } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "dist");

/** The client library's build: a single-file script, and a module that may have chunks. */
const client = join(here, "../client/dist");

/** Files below this many bytes are not compressed: the gain is negligible. */
const MIN_COMPRESSED = 512;

function files(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

/** Adds the client library for other sites: as a script, and as a single-file module. */
async function addClient(): Promise<void> {
  const lib = { entry: join(client, "index.js"), formats: ["es" as const], fileName: () => "breathing-room.mjs" };
  const outDir = join(out, "client");
  await build({ configFile: false, logLevel: "warn", build: { lib, outDir, target: "es2022", rolldownOptions: { output: { minify: true } } } });
  copyFileSync(join(client, "breathing-room.js"), join(outDir, "breathing-room.js"));
}

/** Adds the client library, then a `.br` and a `.gz` of each file, so that the hub never compresses. */
function prepareForHub(): Plugin {
  return {
    name: "prepare-for-hub",
    apply: "build",
    async closeBundle() {
      await addClient();
      for (const file of files(out)) {
        const content = readFileSync(file);
        if (content.length < MIN_COMPRESSED) continue;
        const params = { [constants.BROTLI_PARAM_SIZE_HINT]: content.length };
        writeFileSync(`${file}.br`, brotliCompressSync(content, { params }));
        writeFileSync(`${file}.gz`, gzipSync(content, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  root: here,
  build: {
    outDir: out,
    emptyOutDir: true,
    target: "es2022",
    // The Content-Security-Policy allows neither inline code nor data: URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: ["index.html", "room.html", "token.html"].map((page) => join(here, page)),
    },
  },
  plugins: [prepareForHub()],
});
