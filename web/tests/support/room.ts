// The room page, as a person uses it and looks at it.

import type { Page } from "playwright-core";
import { expect } from "vitest";
import type { Person } from "./browser";

declare global {
  interface Window {
    /** Each number of people that stood on the page, and whatever should not have. */
    seen: string[];
    stale: string[];
  }
}

export class RoomPage {
  readonly page: Page;

  private constructor(page: Page) {
    this.page = page;
  }

  static async enter(person: Person, hub: string, room = "lobby"): Promise<RoomPage> {
    const page = await person.tab();
    await page.addInitScript(watch);
    await page.goto(`${hub}/room/${room}`);
    const entered = new RoomPage(page);
    await entered.expectState("You are here.");
    return entered;
  }

  async expectPresent(people: number | "–"): Promise<void> {
    await this.page.locator("#present").filter({ hasText: new RegExp(`^${people}$`) }).waitFor();
  }

  async expectState(words: string): Promise<void> {
    await this.page.locator("#state-words").filter({ hasText: words }).waitFor();
  }

  async pick(mood: string): Promise<void> {
    await this.page.getByRole("radio", { name: new RegExp(`^${mood}`) }).check();
  }

  /** Waits until the picker says so many people are in this mood. */
  async expectMood(mood: string, people: number): Promise<void> {
    const name = people > 0 ? `${mood} ${people} here` : mood;
    await this.page.getByRole("radio", { name, exact: true }).waitFor({ state: "attached" });
  }

  /** Every number of people that stood here, beginning with the one that stood here when this was asked last. */
  async seen(): Promise<string[]> {
    return await this.page.evaluate(() => {
      const all = window.seen;
      window.seen = all.slice(-1);
      return all;
    });
  }

  /** At no moment the room of a connection that was gone stood on the page. */
  async expectNothingStale(): Promise<void> {
    expect(await this.page.evaluate(() => window.stale)).toEqual([]);
  }
}

/** Runs in the page: looks at it after each change, and in each frame at whether it is still true. */
function watch(): void {
  window.seen = [];
  window.stale = [];
  const text = (selector: string): string => document.querySelector(selector)?.textContent ?? "";
  const look = (): void => {
    if (window.seen.at(-1) !== text("#present")) window.seen.push(text("#present"));
  };
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
  });

  const sockets: WebSocket[] = [];
  window.WebSocket = class extends WebSocket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, protocols);
      sockets.push(this);
    }
  };
  let goneBefore = false;
  const check = (): void => {
    const gone = !sockets.some((socket) => socket.readyState === WebSocket.OPEN);
    const counts = [...document.querySelectorAll(".count")].map((count) => count.textContent).join("");
    const lights = document.querySelectorAll("#lights > *").length;
    if (gone && goneBefore && (text("#present") !== "–" || counts !== "" || lights > 0)) {
      window.stale.push(`${text("#state-words")} ${text("#present")} ${counts} ${lights}`);
    }
    goneBefore = gone;
    requestAnimationFrame(check);
  };
  addEventListener("DOMContentLoaded", check);
}
