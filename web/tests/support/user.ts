// A real browser. Each user has a separate profile and any number of tabs.

import { type Browser, type BrowserContext, type BrowserContextOptions, type Page, chromium } from "playwright-core";
import { expect, inject } from "vitest";
import { TIMEOUT } from "./eventually";

export const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
  // The hub does not count bots, and the default user agent of headless Chromium is one.
  "--user-agent=Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
];

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: inject("chromium"),
    args: FLAGS,
    // Playwright disables the back/forward cache by default; one test needs it.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
}

/**
 * Console errors while there is no network or no hub. A hub that is back when the client asks why it was refused answers
 * with 426.
 */
export const UNREACHABLE = /WebSocket connection to .* failed|ERR_(CONNECTION|INTERNET|EMPTY|NETWORK|SOCKET)|status of 426/;

export class User {
  readonly context: BrowserContext;
  readonly #errors: string[] = [];

  private constructor(context: BrowserContext) {
    this.context = context;
  }

  static async create(browser: Browser, options: BrowserContextOptions = {}): Promise<User> {
    return await User.of(await browser.newContext(options));
  }

  /** Returns the user of a context. */
  static async of(context: BrowserContext): Promise<User> {
    context.setDefaultTimeout(TIMEOUT);
    await context.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective}`));
    });
    return new User(context);
  }

  /** Opens a tab and records its console errors, warnings and exceptions. */
  async tab(): Promise<Page> {
    const page = await this.context.newPage();
    page.on("pageerror", (error) => this.#errors.push(String(error)));
    page.on("console", (message) => {
      const text = `${message.text()} ${message.location().url}`;
      if (["error", "warning"].includes(message.type())) this.#errors.push(text);
    });
    return page;
  }

  async open(url: string): Promise<Page> {
    const page = await this.tab();
    await page.goto(url);
    return page;
  }

  /** Closes all tabs. Fails if a recorded error does not match `expected`. */
  async close(expected?: RegExp): Promise<void> {
    await this.context.close();
    expect(this.#errors.filter((error) => !expected?.test(error))).toEqual([]);
  }
}
