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
      joinRoom({ hub: new URL("..", script.src).href, ...(dataset as { room: string }) });

/**
 * The text for a count: `data-one`, `data-few`, `data-other` and the like by the plural rules of the element's language,
 * with the count for each `#`. Without them the count alone.
 */
function pluralText(element: HTMLElement, count: number): string {
  const { dataset } = element;
  const text = dataset[pluralOf(element.closest<HTMLElement>("[lang]")?.lang, count)] ?? dataset.other ?? "#";
  return text.replaceAll("#", String(count));
}

function pluralOf(language: string | undefined, count: number): Intl.LDMLPluralRule {
  try {
    return new Intl.PluralRules(language || undefined).select(count);
  } catch {
    return "other"; // not a language
  }
}

if (room) {
  const render = (): void => {
    const { present, state } = room;
    const isJoined = state === "open" || state === "checking";
    for (const element of document.querySelectorAll<HTMLElement>("[data-breathing-room]")) {
      const { dataset } = element;
      // For styles: `[data-state=checking]` may be old.
      dataset.state = state;
      element.textContent =
        dataset.breathingRoom === "state" ? state : isJoined ? pluralText(element, present) : dataset.placeholder ?? "";
    }
  };
  room.addEventListener("presence", render);
  room.addEventListener("state", render);
  addEventListener("DOMContentLoaded", render);
  if (dataset.pageView !== undefined) room.pageView(undefined, { title: document.title });
}
