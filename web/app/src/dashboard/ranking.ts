// A list of the most: a table with a bar behind each row. It keeps its height, however many rows there are.

import { h } from "../dom";

export interface Row {
  name: string;
  /** Where the name leads to. */
  href?: string;
  /** The colour of its bar, where it has one of its own. */
  colour?: string;
  /** What the bar's length goes by. */
  size: number;
  /** The number as people read it, one for each column. */
  values: string[];
}

export interface Heading {
  title: string;
  /** What the rows are, and what is counted of them. */
  columns: [string, ...string[]];
  /** What is said when there are no rows. */
  empty: string;
  /** How many rows are shown at most. */
  most: number;
}

export class Ranking {
  readonly #heading: Heading;
  readonly #body = h("div", { class: "ranking-body" });

  constructor(place: HTMLElement, heading: Heading) {
    this.#heading = heading;
    this.#body.style.setProperty("--rows", String(heading.most));
    place.append(h("section", { class: "card ranking" }, h("h3", {}, heading.title), this.#body));
    this.wait();
  }

  /** There is nothing to show yet. */
  wait(): void {
    this.#body.replaceChildren(h("p", { class: "skeleton", "aria-hidden": "true" }));
  }

  /** Instead of rows, why there are none. */
  say(words: string): void {
    this.#body.replaceChildren(h("p", { class: "nothing" }, words));
  }

  /** Shows these rows, which come in their order. */
  show(rows: Row[]): void {
    const { title, columns, empty, most } = this.#heading;
    if (rows.length === 0) return this.say(empty);
    const largest = Math.max(...rows.map((row) => row.size), Number.MIN_VALUE);
    // Where not all fit, the last line says how many are left.
    const shown = rows.length > most ? rows.slice(0, most - 1) : rows;
    const left = rows.length - shown.length;
    const head = h("thead", { class: "heard" }, h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name))));
    const body = h("tbody", {}, ...shown.map((row) => line(row, row.size / largest)));
    this.#body.replaceChildren(
      h("table", {}, h("caption", { class: "heard" }, title), head, body),
      ...(left > 0 ? [h("p", { class: "rest" }, `and ${left} more`)] : []),
    );
  }
}

function line(row: Row, part: number): HTMLElement {
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--part", String(part));
  if (row.colour) bar.style.setProperty("--colour", row.colour);
  const name = row.href ? h("a", { href: row.href }, row.name) : h("span", {}, row.name);
  name.title = row.name;
  name.classList.add("name");
  const values = row.values.map((value) => h("td", { class: "numbers" }, value));
  return h("tr", {}, h("th", { scope: "row" }, bar, name), ...values);
}
