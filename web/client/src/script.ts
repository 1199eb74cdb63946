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
export const room = dataset.room === undefined ? undefined : joinAndShow();

function joinAndShow(): Room {
  const { hub, pageView } = dataset;
  const room = joinRoom({
    ...(dataset as { room: string }),
    // The hub serves this script at client/breathing-room.js.
    hub: (hub?.match(/[^\s,]+/g) as [string] | null | undefined) ?? new URL("..", script.src).href,
  });

  function render(): void {
    const { present, state } = room;
    for (const element of document.querySelectorAll<HTMLElement>("[data-breathing-room]")) {
      const { dataset } = element;
      // For styles: `[data-state=checking]` may be old.
      dataset.state = state;
      element.textContent =
        dataset.breathingRoom === "state" ? state : present ? pluralText(element, present) : dataset.placeholder ?? "";
    }
  }

  room.addEventListener("presence", render);
  room.addEventListener("state", render);
  addEventListener("DOMContentLoaded", render);
  if (pageView !== undefined) room.pageView(undefined, { title: document.title });
  return room;
}

/**
 * The text for a count: `data-one`, `data-few`, `data-other` and the like by the plural rules of the element's language
 * (`lang`, of it or around it; else English), with the count for each `#`. Without them the count alone.
 */
function pluralText(element: HTMLElement, count: number): string {
  const { dataset } = element;
  let text: string | undefined;
  try {
    text = dataset[new Intl.PluralRules(element.closest<HTMLElement>("[lang]")?.lang || "en").select(count)];
  } catch {
    // Not a language.
  }
  return (text ?? dataset.other ?? "#").replaceAll("#", String(count));
}
