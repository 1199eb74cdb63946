// Builds the three pages into dist/, and lays the client library beside them, ready for the hub to take in.

import { copyFileSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { type Plugin, build, defineConfig } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "dist");

/** The client library, built before: a script that is whole, and a module that may have parts. */
const client = join(here, "../client/dist");

/** Below this, in bytes, compressing saves nothing that counts. */
const SMALL = 512;

function files(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

/** Lays down what other people's pages load from the hub: the library as a script, and as one module. */
async function addClient(): Promise<void> {
  const lib = { entry: join(client, "index.js"), formats: ["es" as const], fileName: () => "breathing-room.mjs" };
  const outDir = join(out, "client");
  await build({ configFile: false, logLevel: "warn", build: { lib, outDir, target: "es2022", rolldownOptions: { output: { minify: true } } } });
  copyFileSync(join(client, "breathing-room.js"), join(outDir, "breathing-room.js"));
}

/** Adds the client library, then a `.br` and a `.gz` to every file, so that the hub never compresses. */
function readyToServe(): Plugin {
  return {
    name: "ready-to-serve",
    apply: "build",
    async closeBundle() {
      await addClient();
      for (const file of files(out)) {
        const content = readFileSync(file);
        if (content.length < SMALL) continue;
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
    // The Content-Security-Policy allows nothing inline, data: addresses included.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: ["index.html", "room.html", "token.html"].map((page) => join(here, page)),
    },
  },
  plugins: [readyToServe()],
});
