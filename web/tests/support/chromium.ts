// Finds Chromium once for all tests. Installs it as root on Debian; otherwise fails with instructions.

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
  const paths = (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, name));
  return paths.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Installs Debian's package without prompts. */
function install(): void {
  // The result of the update is ignored: the package may be available although one source failed.
  spawnSync("apt-get", ["-q", "update"], { stdio: "inherit" });
  spawnSync("apt-get", ["-q", "install", "--yes", "--no-install-recommends", "chromium"], { stdio: "inherit" });
}

function chromium(): string {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const found = (): string | undefined => NAMES.map(find).find((path) => path !== undefined);
  if (!found() && process.getuid?.() === 0 && existsSync("/etc/debian_version")) install();
  const path = found();
  if (!path) throw new Error("no Chromium found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path");
  return path;
}

export default function setup(project: TestProject): void {
  project.provide("chromium", chromium());
}
