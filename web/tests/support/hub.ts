// A real hub in its own process: the binary that cargo built.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { DatabaseSync } from "@photostructure/sqlite";

const BINARY = process.env.HUB ?? fileURLToPath(new URL("../../../target/debug/breathing-room", import.meta.url));

export const ADMIN = "the-admins-token";

export class Hub {
  readonly #folder = mkdtempSync(join(tmpdir(), "breathing-room-"));
  readonly #settings: Record<string, string>;
  #process: ChildProcess | undefined;
  #port = 0;

  private constructor(settings: Record<string, string>) {
    this.#settings = settings;
  }

  /** Starts a hub with a new database on a free port. */
  static async start(settings: Record<string, string> = {}): Promise<Hub> {
    const hub = new Hub(settings);
    await hub.start();
    return hub;
  }

  /** Starts the process, after the first time with the same port and database. */
  async start(): Promise<void> {
    const child = spawn(BINARY, {
      env: {
        LISTEN: `127.0.0.1:${this.#port}`,
        DATABASE_URL: `sqlite://${this.#folder}/hub.db`,
        ADMIN_TOKEN: ADMIN,
        FLUSH_INTERVAL: "100ms",
        RUST_LOG: "warn",
        ...this.#settings,
      },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#process = child;
    const kill = (): void => void child.kill("SIGKILL");
    process.once("exit", kill);
    child.once("exit", () => process.off("exit", kill));
    const exited = once(child, "exit").then(() => {
      throw new Error(`the hub did not start; is ${BINARY} built? (cargo build)`);
    });
    const [line] = (await Promise.race([once(createInterface(child.stdout!), "line"), exited])) as [string];
    exited.catch(() => undefined);
    this.#port = Number(new URL(line.slice(line.indexOf("http"))).port);
  }

  get port(): number {
    return this.#port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Kills the process with SIGKILL: no graceful shutdown, no last flush. */
  async kill(): Promise<void> {
    await this.#stop("SIGKILL");
  }

  /** Stops the process without ending it: its sockets stay open, and nothing answers. Waits until all threads stand still. */
  async pause(): Promise<void> {
    const { pid } = this.#process!;
    this.#process!.kill("SIGSTOP");
    while (!isStopped(`/proc/${pid}/task`)) await setTimeout(1);
  }

  /** Continues a paused process. */
  resume(): void {
    this.#process?.kill("SIGCONT");
  }

  /** Kills the process and deletes its database. */
  async dispose(): Promise<void> {
    await this.#stop("SIGKILL");
    rmSync(this.#folder, { recursive: true });
  }

  async #stop(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
  }

  async get<T>(path: string): Promise<T> {
    return (await this.#request(path, {})) as T;
  }

  /** Posts events and waits for the commit. */
  async post(path: "/page-view" | "/watch-session", events: object[]): Promise<void> {
    const headers = { "content-type": "application/json" };
    await this.#request(`${path}?durable=true`, { method: "POST", headers, body: JSON.stringify(events) });
  }

  /** Imports records of any age, in the export format. */
  async import(records: object[]): Promise<void> {
    const file = join(this.#folder, "events.jsonl");
    writeFileSync(file, records.map((record) => JSON.stringify(record)).join("\n"));
    const child = spawn(BINARY, ["import", file], {
      env: { DATABASE_URL: `sqlite://${this.#folder}/hub.db` },
      stdio: ["ignore", "ignore", "inherit"],
    });
    const [code] = (await once(child, "exit")) as [number | null];
    if (code !== 0) throw new Error(`the import failed with exit code ${code}`);
  }

  /** Flushes pending events to the database. */
  async flush(): Promise<void> {
    await this.#request("/flush", { method: "POST", headers: { authorization: `Bearer ${ADMIN}` } });
  }

  async #request(path: string, init: RequestInit): Promise<unknown> {
    const response = await fetch(this.url + path, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  }

  /** Queries the database file. */
  rows<T>(query: string): T[] {
    const database = new DatabaseSync(join(this.#folder, "hub.db"), { readOnly: true });
    try {
      return database.prepare(query).all() as T[];
    } finally {
      database.close();
    }
  }
}

/** Whether all threads are stopped by a signal. Systems without /proc do not say it. */
function isStopped(threads: string): boolean {
  const state = (thread: string): string => readFileSync(`${threads}/${thread}/stat`, "latin1").replace(/.*\) /s, "").charAt(0);
  try {
    return !existsSync(threads) || readdirSync(threads).every((thread) => state(thread) === "T");
  } catch {
    return false; // a thread has ended meanwhile
  }
}
