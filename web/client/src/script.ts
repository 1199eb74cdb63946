/**
 * For pages without a bundler: the global `BreathingRoom`, and a room that is joined by the script's own
 * `data-` attributes. Elements with `data-breathing-room` show what is there.
 */

import type { Room } from "./api.js";
import { joinRoom } from "./index.js";

export { joinRoom };

const script = document.currentScript as HTMLScriptElement;
const { dataset } = script;

/** The room of the script's `data-room`, if it has one. */
export const room: Room | undefined = dataset.room === undefined ? undefined : join(dataset.room);

function join(name: string): Room {
  // The hub serves this very script, at client/breathing-room.js.
  const { hub = new URL("..", script.src).href, visitor, mood, token, pageView } = dataset;
  const joined = joinRoom({ hub, room: name, visitor, mood, token });
  const show = (): void => {
    const { present, state } = joined;
    const texts = { present: state === "open" ? present : "", state };
    for (const [what, text] of Object.entries(texts)) {
      for (const element of document.querySelectorAll(`[data-breathing-room=${what}]`)) {
        element.textContent = `${text}`;
      }
    }
  };
  joined.addEventListener("presence", show);
  joined.addEventListener("state", show);
  addEventListener("DOMContentLoaded", show);
  const { title, referrer } = document;
  if (pageView !== undefined) joined.pageView(undefined, { title, referrer });
  return joined;
}
