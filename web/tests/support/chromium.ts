// Finds Chromium once for all tests; installs it where that is easy, or says in one line how.

import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  export interface ProvidedContext {
    chromium: string;
  }
}

const NAMES = ["chromium", "chromium-browser", "google-chrome"];

function find(name: string): string | undefined {
  const places = (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, name));
  return places.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Debian's own package, without a question. */
function install(): void {
  // Where one of the machine's sources does not answer, the package may be there all the same.
  spawnSync("apt-get", ["-q", "update"], { stdio: "inherit" });
  spawnSync("apt-get", ["-q", "install", "--yes", "--no-install-recommends", "chromium"], { stdio: "inherit" });
}

function chromium(): string {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const found = (): string | undefined => NAMES.map(find).find((path) => path !== undefined);
  if (!found() && process.getuid?.() === 0 && existsSync("/etc/debian_version")) install();
  const path = found();
  if (!path) throw new Error("no Chromium found: install it (Debian: apt-get install chromium) or name it in CHROMIUM");
  return path;
}

export default function setup(project: TestProject): void {
  project.provide("chromium", chromium());
}
