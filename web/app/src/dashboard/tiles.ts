// The totals of the period, with the change since the previous period.

import { element, h, setText } from "../dom";
import { average, change, count, duration } from "./format";
import { RANGES, type Stats, type Totals } from "./stats";

const TILES: { key: keyof Totals; label: string; format: (value: number) => string }[] = [
  { key: "averagePresent", label: "Average present", format: average },
  { key: "peakPresent", label: "Peak present", format: count },
  { key: "visitors", label: "Visitors", format: count },
  { key: "joins", label: "Joins", format: count },
  { key: "pageViews", label: "Page views", format: count },
  { key: "watchedMs", label: "Watched", format: duration },
];

export class Tiles {
  readonly #values = TILES.map((tile) => {
    const value = h("span", { class: "value numbers" }, "–");
    const delta = h("span", { class: "delta numbers", "aria-hidden": "true" });
    const spoken = h("span", { class: "visually-hidden" });
    element("tiles").append(
      h("div", { class: "tile", "data-total": tile.key }, h("dt", {}, tile.label), h("dd", {}, value, delta, spoken)),
    );
    return { ...tile, value, delta, spoken };
  });

  show({ totals, previous, range }: Stats): void {
    for (const { key, value, delta, spoken, format } of this.#values) {
      const compared = change(totals[key], previous.totals[key]);
      setText(value, format(totals[key]));
      setText(delta, compared.short);
      setText(spoken, ` ${compared.spoken} in the ${RANGES[range]} before`);
    }
  }

  clear(): void {
    for (const { value, delta, spoken } of this.#values) {
      setText(value, "–");
      setText(delta, "");
      setText(spoken, "");
    }
  }
}
