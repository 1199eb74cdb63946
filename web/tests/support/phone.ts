// A phone: a browser whose page freezes when the screen locks, as Chromium does it on Android.
//
// Playwright keeps all pages visible, except those of a browser that it did not launch. So a phone is a Chromium of its
// own, with one profile.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Browser, type CDPSession, type Page, chromium } from "playwright-core";
import { inject } from "vitest";
import { FLAGS, User } from "./user";

export class Phone {
  readonly user: User;
  readonly #browser: Browser;
  readonly #process: ChildProcess;
  readonly #profile: string;
  /** The page of the lock screen. */
  readonly #lockScreen: Page;
  readonly #sessions = new Map<Page, CDPSession>();

  private constructor(user: User, browser: Browser, process: ChildProcess, profile: string, lockScreen: Page) {
    this.user = user;
    this.#browser = browser;
    this.#process = process;
    this.#profile = profile;
    this.#lockScreen = lockScreen;
  }

  static async start(): Promise<Phone> {
    const profile = mkdtempSync(join(tmpdir(), "breathing-room-phone-"));
    const flags = ["--headless=new", ...FLAGS, "--remote-debugging-port=0", `--user-data-dir=${profile}`, "about:blank"];
    const child = spawn(inject("chromium"), flags, { stdio: ["ignore", "ignore", "pipe"] });
    const kill = (): void => void child.kill("SIGKILL");
    process.once("exit", kill);
    child.once("exit", () => process.off("exit", kill));
    const browser = await chromium.connectOverCDP(await endpoint(child), { noDefaults: true });
    const context = browser.contexts()[0]!;
    return new Phone(await User.of(context), browser, child, profile, context.pages()[0]!);
  }

  /** Opens another app. Waits until the page knows that it is hidden. */
  async hide(page: Page): Promise<void> {
    await this.#lockScreen.bringToFront();
    await page.waitForFunction(() => document.hidden, undefined, { polling: 50 });
  }

  /** Comes back to the page. Waits until it knows that it is visible. */
  async show(page: Page): Promise<void> {
    await page.bringToFront();
    await page.waitForFunction(() => !document.hidden, undefined, { polling: 50 });
  }

  /** Locks the screen: the page is hidden and frozen. No script and no timer of it runs, and Chromium ends its sockets. */
  async lock(page: Page): Promise<void> {
    await (await this.#session(page)).send("Page.setWebLifecycleState", { state: "frozen" });
  }

  /** Unlocks the screen: the page runs again and is visible. */
  async unlock(page: Page): Promise<void> {
    await (await this.#session(page)).send("Page.setWebLifecycleState", { state: "active" });
    await this.hide(page);
    await this.show(page);
  }

  /** Closes all pages. */
  async closePages(): Promise<void> {
    const pages = this.user.context.pages().filter((page) => page !== this.#lockScreen);
    await Promise.all(pages.map((page) => page.close()));
    this.#sessions.clear();
  }

  /** Closes the browser and deletes its profile. */
  async close(): Promise<void> {
    const exited = once(this.#process, "exit");
    const session = await this.#browser.newBrowserCDPSession();
    await session.send("Browser.close").catch(() => undefined);
    await exited;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }

  async #session(page: Page): Promise<CDPSession> {
    const known = this.#sessions.get(page);
    if (known) return known;
    const session = await this.user.context.newCDPSession(page);
    this.#sessions.set(page, session);
    return session;
  }
}

/** Waits for the address of the browser's DevTools. */
async function endpoint(child: ChildProcess): Promise<string> {
  for await (const line of createInterface(child.stderr!)) {
    const address = /^DevTools listening on (ws:.*)$/.exec(line)?.[1];
    if (address !== undefined) {
      child.stderr!.resume();
      return address;
    }
  }
  throw new Error("Chromium did not start");
}
