// The totals of the period, with the change since the previous period.

import { element, h, setText } from "../dom";
import { average, change, count, duration } from "./format";
import { RANGES, type Stats, type Totals } from "./stats";

interface Tile {
  key: keyof Totals | "sitMinutes";
  label: string;
  /** The number that is compared with the previous period's. */
  value: (totals: Totals) => number;
  text: (totals: Totals) => string;
}

function tile(key: Exclude<keyof Totals, "sits">, label: string, format: (value: number) => string): Tile {
  return { key, label, value: (totals) => totals[key], text: (totals) => format(totals[key]) };
}

const NO_SITS = { begun: 0, completed: 0, minutes: 0 };

const TILES: Tile[] = [
  tile("averagePresent", "Average present", average),
  tile("peakPresent", "Peak present", count),
  tile("visitors", "Visitors", count),
  tile("joins", "Joins", count),
  {
    key: "sits",
    label: "Sits completed",
    value: ({ sits = NO_SITS }) => sits.completed,
    text: ({ sits = NO_SITS }) => `${count(sits.completed)} of ${count(sits.begun)}`,
  },
  {
    key: "sitMinutes",
    label: "Time sat",
    value: ({ sits = NO_SITS }) => sits.minutes,
    text: ({ sits = NO_SITS }) => duration(sits.minutes * 60_000),
  },
  tile("pageViews", "Page views", count),
  tile("watchedMs", "Watched", duration),
];

export class Tiles {
  readonly #values = TILES.map((tile) => {
    const shown = h("span", { class: "value numbers" }, "–");
    const delta = h("span", { class: "delta numbers", "aria-hidden": "true" });
    const spoken = h("span", { class: "visually-hidden" });
    element("tiles").append(
      h("div", { class: "tile", "data-total": tile.key }, h("dt", {}, tile.label), h("dd", {}, shown, delta, spoken)),
    );
    return { ...tile, shown, delta, spoken };
  });

  show({ totals, previous, range }: Stats): void {
    for (const { value, shown, text, delta, spoken } of this.#values) {
      const compared = change(value(totals), value(previous.totals));
      setText(shown, text(totals));
      setText(delta, compared.short);
      setText(spoken, ` ${compared.spoken} in the ${RANGES[range]} before`);
    }
  }

  clear(): void {
    for (const { shown, delta, spoken } of this.#values) {
      setText(shown, "–");
      setText(delta, "");
      setText(spoken, "");
    }
  }
}
