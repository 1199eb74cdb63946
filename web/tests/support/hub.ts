// A real hub: the program that cargo built, in a process of its own, which can be killed.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { DatabaseSync } from "@photostructure/sqlite";

const PROGRAM = process.env.HUB ?? fileURLToPath(new URL("../../../target/debug/breathing-room", import.meta.url));

export const ADMIN = "the-admins-token";

export class Hub {
  readonly #folder = mkdtempSync(join(tmpdir(), "breathing-room-"));
  readonly #settings: Record<string, string>;
  #program: ChildProcess | undefined;
  #port = 0;

  private constructor(settings: Record<string, string>) {
    this.#settings = settings;
  }

  /** A hub with a database of its own, on a free port. */
  static async start(settings: Record<string, string> = {}): Promise<Hub> {
    const hub = new Hub(settings);
    await hub.start();
    return hub;
  }

  /** Starts it again, on the same port and the same database. */
  async start(): Promise<void> {
    const program = spawn(PROGRAM, {
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
    this.#program = program;
    process.once("exit", () => program.kill("SIGKILL"));
    const ended = once(program, "exit").then(() => {
      throw new Error(`the hub did not start; is ${PROGRAM} built? (cargo build)`);
    });
    const [line] = (await Promise.race([once(createInterface(program.stdout!), "line"), ended])) as [string];
    ended.catch(() => undefined);
    this.#port = Number(new URL(line.slice(line.indexOf("http"))).port);
  }

  get port(): number {
    return this.#port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** kill -9: no goodbye, no last flush. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** Ends the hub and everything it kept. */
  async dispose(): Promise<void> {
    await this.#end("SIGKILL");
    rmSync(this.#folder, { recursive: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const program = this.#program;
    this.#program = undefined;
    if (!program || program.exitCode !== null || program.signalCode !== null) return;
    const ended = once(program, "exit");
    program.kill(signal);
    await ended;
  }

  async get<T>(path: string): Promise<T> {
    return (await this.#ask(path, {})) as T;
  }

  /** Posts events, and waits until they are committed. */
  async post(path: "/page-view" | "/watch-session", events: object[]): Promise<void> {
    const headers = { "content-type": "application/json" };
    await this.#ask(`${path}?durable=true`, { method: "POST", headers, body: JSON.stringify(events) });
  }

  /** Tells facts of any age, as an export has them. */
  async import(records: object[]): Promise<void> {
    const file = join(this.#folder, "facts.jsonl");
    writeFileSync(file, records.map((record) => JSON.stringify(record)).join("\n"));
    const program = spawn(PROGRAM, ["import", file], {
      env: { DATABASE_URL: `sqlite://${this.#folder}/hub.db` },
      stdio: ["ignore", "ignore", "inherit"],
    });
    const [code] = (await once(program, "exit")) as [number | null];
    if (code !== 0) throw new Error(`the import ended with ${code}`);
  }

  /** Writes everything that is pending. */
  async flush(): Promise<void> {
    await this.#ask("/flush", { method: "POST", headers: { authorization: `Bearer ${ADMIN}` } });
  }

  async #ask(path: string, request: RequestInit): Promise<unknown> {
    const answer = await fetch(this.url + path, request);
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${text}`);
    return JSON.parse(text);
  }

  /** What the sqlite3 shell would show. */
  rows<T>(query: string): T[] {
    const database = new DatabaseSync(join(this.#folder, "hub.db"), { readOnly: true });
    try {
      return database.prepare(query).all() as T[];
    } finally {
      database.close();
    }
  }
}
