// The sit: its offers, the remaining time, the bell at its end, and the screen that stays on.

import type { Room, Sit, SitEnd } from "@breathing-room/client";
import { element, h, setText } from "../dom";
import { load, save } from "../storage";
import { Bell } from "./bell";
import { lockText, remainingText } from "./texts";
import { WakeLock } from "./wake-lock";

const BELL_KEY = "breathing-room:bell";
const MINUTES = [5, 10, 20, 30, 45];
const REFRESH = 1_000; // ms
const REFUSED = "The hub cannot hold your place now. You are in the room while this page is open.";

export class SitPanel {
  readonly #room: Room;
  readonly #announce: (text: string) => void;
  readonly #bell = new Bell();
  readonly #bellSwitch = element<HTMLInputElement>("bell");
  readonly #wakeLock = new WakeLock(() => this.#show());
  #sit: Sit | null = null;
  #timer: ReturnType<typeof setInterval> | undefined;
  /** The hub refused the last sit. */
  #isRefused = false;

  /** Calls `announce` when a sit begins or ends. */
  constructor(room: Room, announce: (text: string) => void) {
    this.#room = room;
    this.#announce = announce;
    element("sit-offers").append(...MINUTES.map((minutes) => this.#offer(minutes)));
    element("sit-end").addEventListener("click", () => this.#sit?.end());
    this.#bellSwitch.checked = load("localStorage", BELL_KEY) === "on";
    this.#bellSwitch.addEventListener("change", () => {
      save("localStorage", BELL_KEY, this.#bellSwitch.checked ? "on" : null);
      this.#setBell();
      this.#show();
    });
    room.addEventListener("sit", () => this.#follow());
    room.addEventListener("state", () => this.#show());
    this.#follow();
    this.#show();
  }

  #follow(): void {
    const sit = this.#room.currentSit;
    if (!sit || sit === this.#sit) return;
    this.#sit = sit;
    this.#isRefused = false;
    sit.addEventListener("change", () => {
      this.#setBell();
      this.#show();
    });
    sit.addEventListener("end", ({ detail }) => sit === this.#sit && this.#onEnd(detail.reason));
    this.#timer ??= setInterval(() => this.#show(), REFRESH);
    this.#wakeLock.set(true);
    this.#setBell();
    // The offers go, and the focus with them.
    const hadFocus = element("sit-offer").contains(document.activeElement);
    this.#show();
    if (hadFocus) element("sit-end").focus();
    this.#announce(`${remainingText(sit.remaining)}.`);
  }

  #offer(minutes: number): HTMLElement {
    const button = h("button", { type: "button" }, String(minutes), h("span", { class: "visually-hidden" }, " minutes"));
    button.addEventListener("click", () => this.#room.sit({ minutes }));
    return button;
  }

  #onEnd(reason: SitEnd): void {
    const hadFocus = document.activeElement === element("sit-end");
    this.#sit = null;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#wakeLock.set(false);
    this.#bell.clear(reason !== "completed");
    this.#isRefused = reason === "refused";
    this.#show();
    if (hadFocus) element("sit-offers").querySelector("button")?.focus();
    this.#announce(this.#isRefused ? REFUSED : "The sit has ended.");
  }

  #setBell(): void {
    const sit = this.#sit;
    if (!sit) return;
    if (this.#bellSwitch.checked) this.#bell.set(() => sit.remaining);
    else this.#bell.clear(true);
  }

  #show(): void {
    const { state } = this.#room;
    const sitting = this.#timer !== undefined;
    for (const button of element("sit-offers").querySelectorAll("button")) button.disabled = state === "closed";
    element("sit-offer").hidden = sitting;
    element("sit-running").hidden = !sitting;
    if (sitting) setText(element("sit-left"), remainingText(this.#sit?.remaining ?? 0));
    const confirmed = this.#sit?.confirmed ?? false;
    const lock = lockText({ state, sitting, confirmed, awake: this.#wakeLock.held, bell: this.#bellSwitch.checked });
    setText(element("sit-note"), this.#isRefused ? REFUSED : lock);
  }
}
