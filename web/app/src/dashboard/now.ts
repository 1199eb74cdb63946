// The current activity. While the path is in doubt it is dimmed with its age; without a connection it shows no data.

import { element, h, setText } from "../dom";
import { hub } from "../hub";
import { byCount, moodColour } from "../moods";
import { age, count, plural } from "./format";
import type { Activity, Live } from "./live";
import { atLeast, showNodes, silentText } from "./nodes";
import { Ranking } from "./ranking";

const MAX_ROWS = 5;
const UNKNOWN = "Not available without a connection.";

export class Now {
  readonly #rooms: Ranking;
  readonly #moods: Ranking;
  readonly #watching: Ranking;
  readonly #pages: Ranking;
  #age: ReturnType<typeof setInterval> | undefined;

  constructor() {
    const container = element("now");
    const ranking = (title: string, columns: [string, string], empty: string): Ranking =>
      new Ranking(container, { title, columns, empty, maxRows: MAX_ROWS });
    this.#rooms = ranking("Rooms", ["Room", "People"], "All rooms are empty.");
    this.#moods = ranking("Moods", ["Mood", "People"], "No moods are set.");
    this.#watching = ranking("Being watched", ["Content", "People"], "Nothing is playing.");
    this.#pages = ranking("Pages", ["Page", "People"], "No pages are open.");
  }

  show(live: Live): void {
    clearInterval(this.#age);
    element("live").classList.toggle("stale", live.state === "checking");
    element("live-indicator").className = `indicator ${live.state === "open" ? "open" : "waiting"}`;
    switch (live.state) {
      case "open":
        setText(element("live-state"), "Live");
        return this.#showActivity(live.activity);
      case "checking":
        this.#age = setInterval(() => this.#showAge(live.heardAt), 1_000);
        return this.#showAge(live.heardAt);
      case "lost":
        setText(element("live-state"), "Not connected to the hub. Reconnecting…");
        return this.#clear();
    }
  }

  #showAge(heardAt: number): void {
    setText(element("live-state"), `Checking the connection. These numbers are ${age(Date.now() - heardAt)} old.`);
  }

  #clear(): void {
    setText(element("live-users"), "–");
    setText(element("live-text"), "people here now");
    for (const list of [this.#rooms, this.#moods, this.#watching, this.#pages]) list.showMessage(UNKNOWN);
  }

  #showActivity({ liveUsers, rooms, moods, watching, pages, cluster }: Activity): void {
    setText(element("live-users"), atLeast(liveUsers, cluster));
    setText(element("live-text"), liveText(liveUsers, rooms.length) + silentText(cluster));
    showNodes(cluster);
    this.#rooms.show(
      rooms.map(({ room, present, held }) => ({
        name: room,
        href: `${hub()}/room/${room}`,
        size: present,
        values: [presentText(present, held)],
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

/** The visitors of a room, with those who have no connection now: they sit with a locked phone, or will be back. */
export function presentText(present: number, held: number): string {
  return held > 0 ? `${count(present)}, ${count(held)} held` : count(present);
}

function liveText(people: number, rooms: number): string {
  const noun = people === 1 ? "person here now" : "people here now";
  // The hub lists at most the 100 largest rooms.
  return people === 0 ? noun : `${noun}, in ${rooms >= 100 ? "100 rooms or more" : plural(rooms, "room", "rooms")}`;
}
