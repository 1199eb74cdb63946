/**
 * Build for pages without a bundler: the global `BreathingRoom`, and a room joined with the script tag's `data-`
 * attributes. Elements with `data-breathing-room` show `present` or `state`.
 */

import type { Room } from "./api.js";
import { joinRoom } from "./index.js";

export { joinRoom };

const script = document.currentScript as HTMLScriptElement;
const { dataset } = script;

/** The room of the script's `data-room`, if it has one. */
export const room: Room | undefined =
  dataset.room === undefined
    ? undefined
    : // The hub serves this script at client/breathing-room.js.
      joinRoom({ hub: new URL("..", script.src).href, ...dataset, room: dataset.room });

if (room) {
  const render = (): void => {
    const { present, state } = room;
    const texts: Record<string, unknown> = { present: state === "open" ? present : "", state };
    for (const element of document.querySelectorAll<HTMLElement>("[data-breathing-room]")) {
      element.textContent = texts[element.dataset.breathingRoom!] as string;
    }
  };
  room.addEventListener("presence", render);
  room.addEventListener("state", render);
  addEventListener("DOMContentLoaded", render);
  // `document` has the fields `title` and `referrer` of the options.
  if (dataset.pageView !== undefined) room.pageView(undefined, document);
}
