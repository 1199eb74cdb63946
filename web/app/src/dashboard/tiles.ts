// The totals of the period, each beside that of the period before.

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
    const sign = h("span", { class: "sign numbers", "aria-hidden": "true" });
    const words = h("span", { class: "heard" });
    element("tiles").append(
      h("div", { class: "tile", "data-total": tile.key }, h("dt", {}, tile.label), h("dd", {}, value, sign, words)),
    );
    return { ...tile, value, sign, words };
  });

  show({ totals, previous, range }: Stats): void {
    for (const { key, value, sign, words, format } of this.#values) {
      const compared = change(totals[key], previous.totals[key]);
      setText(value, format(totals[key]));
      setText(sign, compared.sign);
      setText(words, ` ${compared.words} in the ${RANGES[range]} before`);
    }
  }

  /** There is nothing that may be shown. */
  clear(): void {
    for (const { value, sign, words } of this.#values) {
      setText(value, "–");
      setText(sign, "");
      setText(words, "");
    }
  }
}
