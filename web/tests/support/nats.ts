// A real NATS server with JetStream in its own process: the one that the tests of the cluster install.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const PROGRAM = fileURLToPath(new URL("../../../tests/cluster/nats-server", import.meta.url));

export class Nats {
  readonly url: string;
  readonly #folder: string;
  readonly #process: ChildProcess;

  private constructor(url: string, folder: string, process: ChildProcess) {
    this.url = url;
    this.#folder = folder;
    this.#process = process;
  }

  /** Starts a server on a free port. */
  static async start(): Promise<Nats> {
    const program = execFileSync(PROGRAM, { encoding: "utf8" }).trim();
    const folder = mkdtempSync(join(tmpdir(), "breathing-room-nats-"));
    const args = ["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir", folder];
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
    const kill = (): void => void child.kill("SIGKILL");
    process.once("exit", kill);
    child.once("exit", () => process.off("exit", kill));
    const port = await new Promise<string>((resolve, reject) => {
      createInterface(child.stderr!).on("line", (line) => {
        const listening = /Listening for client connections on 127\.0\.0\.1:(\d+)/.exec(line);
        if (listening) resolve(listening[1]!);
      });
      child.once("exit", () => reject(new Error("nats-server did not start")));
    });
    return new Nats(`nats://127.0.0.1:${port}`, folder, child);
  }

  /** Kills the server. */
  async kill(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await exited;
  }

  /** Kills the server and deletes its files. */
  async dispose(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true });
  }
}
