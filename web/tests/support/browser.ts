// A real browser, and people in it: each has a profile of their own and may open several tabs.

import { type Browser, type BrowserContext, type BrowserContextOptions, type Page, chromium } from "playwright-core";
import { expect, inject } from "vitest";
import { PATIENCE } from "./eventually";

const SWITCHES = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
  // Without a window Chromium calls itself HeadlessChrome, which is a known bot and counts nowhere.
  "--user-agent=Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
];

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: inject("chromium"),
    args: SWITCHES,
    // Playwright would turn it off, and one test is about it.
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
}

/** What a browser says when there is no network or no hub. It is right to. */
export const NO_HUB = /WebSocket connection to .* failed|ERR_(CONNECTION|INTERNET|EMPTY|NETWORK|SOCKET)/;

export class Person {
  readonly context: BrowserContext;
  readonly #complaints: string[] = [];

  private constructor(context: BrowserContext) {
    this.context = context;
  }

  static async come(browser: Browser, options: BrowserContextOptions = {}): Promise<Person> {
    const context = await browser.newContext(options);
    context.setDefaultTimeout(PATIENCE);
    await context.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective}`));
    });
    return new Person(context);
  }

  /** A tab that notes every complaint of the page. */
  async tab(): Promise<Page> {
    const page = await this.context.newPage();
    page.on("pageerror", (error) => this.#complaints.push(String(error)));
    page.on("console", (message) => {
      const text = `${message.text()} ${message.location().url}`;
      if (["error", "warning"].includes(message.type())) this.#complaints.push(text);
    });
    return page;
  }

  async open(url: string): Promise<Page> {
    const page = await this.tab();
    await page.goto(url);
    return page;
  }

  /** Goes, and nothing but what was to be expected was complained about. */
  async goes(expected?: RegExp): Promise<void> {
    await this.context.close();
    expect(this.#complaints.filter((complaint) => !expected?.test(complaint))).toEqual([]);
  }
}
