// The current activity. Without a connection it shows no data.

import { element, h, setText } from "../dom";
import { hub } from "../hub";
import { byCount, moodColour } from "../moods";
import { count, plural } from "./format";
import type { Activity } from "./live";
import { Ranking } from "./ranking";

const MAX_ROWS = 5;
const UNKNOWN = "Not available without a connection.";

export class Now {
  readonly #rooms: Ranking;
  readonly #moods: Ranking;
  readonly #watching: Ranking;
  readonly #pages: Ranking;

  constructor() {
    const container = element("now");
    const ranking = (title: string, columns: [string, string], empty: string): Ranking =>
      new Ranking(container, { title, columns, empty, maxRows: MAX_ROWS });
    this.#rooms = ranking("Rooms", ["Room", "People"], "All rooms are empty.");
    this.#moods = ranking("Moods", ["Mood", "People"], "No moods are set.");
    this.#watching = ranking("Being watched", ["Content", "People"], "Nothing is playing.");
    this.#pages = ranking("Pages", ["Page", "People"], "No pages are open.");
  }

  /** Shows the activity; null clears the old one. */
  show(activity: Activity | null): void {
    element("live-indicator").className = `indicator ${activity ? "open" : "waiting"}`;
    setText(element("live-state"), activity ? "Live" : "Not connected to the hub. Reconnecting…");
    if (!activity) {
      setText(element("live-users"), "–");
      setText(element("live-text"), "people here now");
      for (const list of [this.#rooms, this.#moods, this.#watching, this.#pages]) list.showMessage(UNKNOWN);
      return;
    }
    const { liveUsers, rooms, moods, watching, pages } = activity;
    setText(element("live-users"), count(liveUsers));
    setText(element("live-text"), liveText(liveUsers, rooms.length));
    this.#rooms.show(
      rooms.map(({ room, present }) => ({
        name: room,
        href: `${hub()}/room/${room}`,
        size: present,
        values: [count(present)],
      })),
    );
    this.#moods.show(
      byCount(moods).map(([mood, people]) => ({
        name: mood,
        colour: moodColour(mood),
        size: people,
        values: [count(people)],
      })),
    );
    this.#watching.show(watching.map((row) => ({ name: row.content, size: row.count, values: [count(row.count)] })));
    this.#pages.show(pages.map((row) => ({ name: row.path, size: row.count, values: [count(row.count)] })));
    element("rooms").replaceChildren(...rooms.map(({ room }) => h("option", { value: room })));
  }
}

function liveText(people: number, rooms: number): string {
  const noun = people === 1 ? "person here now" : "people here now";
  // The hub lists at most the 100 largest rooms.
  return people === 0 ? noun : `${noun}, in ${rooms >= 100 ? "100 rooms or more" : plural(rooms, "room", "rooms")}`;
}
