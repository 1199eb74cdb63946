// What is going on at this moment, or that nobody knows.

import { element, h, setText } from "../dom";
import { byCount, moodColour } from "../moods";
import { count, plural } from "./format";
import type { Activity } from "./live";
import { Ranking } from "./ranking";

const MOST = 5;
const UNKNOWN = "Not known while there is no connection.";

export class Now {
  readonly #rooms: Ranking;
  readonly #moods: Ranking;
  readonly #watching: Ranking;
  readonly #pages: Ranking;

  constructor() {
    const place = element("now");
    const ranking = (title: string, columns: [string, string], empty: string): Ranking =>
      new Ranking(place, { title, columns, empty, most: MOST });
    this.#rooms = ranking("Rooms", ["Room", "People"], "Nobody is in a room.");
    this.#moods = ranking("Moods", ["Mood", "People"], "Nobody has set a mood.");
    this.#watching = ranking("Being watched", ["Content", "People"], "Nothing is playing.");
    this.#pages = ranking("Pages", ["Page", "People"], "No page is open.");
  }

  /** Shows the activity. Without one, nothing stays that may no longer be true. */
  show(activity: Activity | null): void {
    element("live-lamp").className = `lamp ${activity ? "open" : "waiting"}`;
    setText(element("live-state"), activity ? "Live" : "Not connected to the hub. Trying again…");
    if (!activity) {
      setText(element("live-users"), "–");
      setText(element("live-words"), "people here now");
      for (const list of [this.#rooms, this.#moods, this.#watching, this.#pages]) list.say(UNKNOWN);
      return;
    }
    const { liveUsers, rooms, moods, watching, pages } = activity;
    setText(element("live-users"), count(liveUsers));
    setText(element("live-words"), liveWords(liveUsers, rooms.length));
    this.#rooms.show(
      rooms.map(({ room, present }) => ({
        name: room,
        href: `/room/${room}`,
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
    this.#watching.show(watching.map((one) => ({ name: one.content, size: one.count, values: [count(one.count)] })));
    this.#pages.show(pages.map((one) => ({ name: one.path, size: one.count, values: [count(one.count)] })));
    element("rooms").replaceChildren(...rooms.map(({ room }) => h("option", { value: room })));
  }
}

function liveWords(people: number, rooms: number): string {
  const noun = people === 1 ? "person here now" : "people here now";
  // The hub lists the hundred largest rooms.
  return people === 0 ? noun : `${noun}, in ${rooms >= 100 ? "100 rooms or more" : plural(rooms, "room", "rooms")}`;
}
