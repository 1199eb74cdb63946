// Page object of the room page.

import type { Page } from "playwright-core";
import { expect } from "vitest";
import type { User } from "./user";

declare global {
  interface Window {
    /** Each count the page has shown. */
    shownCounts: string[];
    /** Descriptions of frames that showed counts without a connection. */
    staleFrames: string[];
  }
}

export class RoomPage {
  readonly page: Page;

  private constructor(page: Page) {
    this.page = page;
  }

  static async open(user: User, hub: string, room = "lobby"): Promise<RoomPage> {
    const opened = await RoomPage.visit(user, `${hub}/room/${room}`);
    await opened.expectState("You are here.");
    return opened;
  }

  /** Opens this address of a room page, whether the visitor can join or not. */
  static async visit(user: User, url: string): Promise<RoomPage> {
    const page = await user.tab();
    await page.addInitScript(observe);
    await page.goto(url);
    return new RoomPage(page);
  }

  async expectPresent(people: number | "–"): Promise<void> {
    await this.page.locator("#present").filter({ hasText: new RegExp(`^${people}$`) }).waitFor();
  }

  async expectState(text: string, timeout?: number): Promise<void> {
    await this.page.locator("#state-text").filter({ hasText: text }).waitFor(timeout === undefined ? {} : { timeout });
  }

  /** Begins a sit of this many minutes; the hub may cut it. */
  async sit(minutes: number): Promise<void> {
    await this.page.getByRole("button", { name: `${minutes} minutes`, exact: true }).click();
    await this.expectSitting();
  }

  async expectSitting(): Promise<void> {
    await this.page.locator("#sit-left").filter({ hasText: "Sitting" }).waitFor();
  }

  async expectNotSitting(): Promise<void> {
    await this.page.locator("#sit-offer").waitFor();
  }

  /** Waits until the page says this about the visitor's place during a sit. */
  async expectSitNote(text: string): Promise<void> {
    await this.page.locator("#sit-note").filter({ hasText: text }).waitFor();
  }

  async pick(mood: string): Promise<void> {
    await this.page.getByRole("radio", { name: new RegExp(`^${mood}`) }).check();
  }

  /** Waits until the picker shows this count for the mood. */
  async expectMood(mood: string, people: number): Promise<void> {
    const name = people > 0 ? `${mood} ${people} here` : mood;
    await this.page.getByRole("radio", { name, exact: true }).waitFor({ state: "attached" });
  }

  /** Returns the counts shown since the last call, starting with the one at that call. */
  async shownCounts(): Promise<string[]> {
    return await this.page.evaluate(() => {
      const all = window.shownCounts;
      window.shownCounts = all.slice(-1);
      return all;
    });
  }

  /** Checks that no frame showed counts without a connection. */
  async expectNoStaleCounts(): Promise<void> {
    expect(await this.page.evaluate(() => window.staleFrames)).toEqual([]);
  }
}

/** Runs in the page. Records each shown count, and each frame with counts but no open socket. */
function observe(): void {
  window.shownCounts = [];
  window.staleFrames = [];
  const text = (selector: string): string => document.querySelector(selector)?.textContent ?? "";
  const record = (): void => {
    if (window.shownCounts.at(-1) !== text("#present")) window.shownCounts.push(text("#present"));
  };
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(record).observe(document.body, { subtree: true, childList: true, characterData: true });
  });

  const sockets: WebSocket[] = [];
  window.WebSocket = class extends WebSocket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, protocols);
      sockets.push(this);
    }
  };
  let wasDisconnected = false;
  const check = (): void => {
    const disconnected = !sockets.some((socket) => socket.readyState === WebSocket.OPEN);
    const counts = [...document.querySelectorAll(".count")].map((count) => count.textContent).join("");
    const lights = document.querySelectorAll("#lights > *").length;
    if (disconnected && wasDisconnected && (text("#present") !== "–" || counts !== "" || lights > 0)) {
      window.staleFrames.push(`${text("#state-text")} ${text("#present")} ${counts} ${lights}`);
    }
    wasDisconnected = disconnected;
    requestAnimationFrame(check);
  };
  addEventListener("DOMContentLoaded", check);
}
