// A top list: a table with a bar behind each row, and with a fixed height.

import { h } from "../dom";

export interface Row {
  name: string;
  /** Link of the name. */
  href?: string;
  /** Colour of the bar, if it is not the default. */
  colour?: string;
  /** The value that sets the bar's length. */
  size: number;
  /** Formatted values, one for each column after the name. */
  values: string[];
}

export interface RankingOptions {
  title: string;
  /** Column headers: the name, then the values. */
  columns: [string, ...string[]];
  /** The text if there are no rows. */
  empty: string;
  maxRows: number;
}

export class Ranking {
  readonly #options: RankingOptions;
  readonly #body = h("div", { class: "ranking-body" });

  constructor(container: HTMLElement, options: RankingOptions) {
    this.#options = options;
    this.#body.style.setProperty("--rows", String(options.maxRows));
    container.append(h("section", { class: "card ranking" }, h("h3", {}, options.title), this.#body));
    this.showLoading();
  }

  showLoading(): void {
    this.#body.replaceChildren(h("p", { class: "skeleton", "aria-hidden": "true" }));
  }

  /** Shows a text instead of rows. */
  showMessage(text: string): void {
    this.#body.replaceChildren(h("p", { class: "empty" }, text));
  }

  /** Shows the rows in the given order. */
  show(rows: Row[]): void {
    const { title, columns, empty, maxRows } = this.#options;
    if (rows.length === 0) return this.showMessage(empty);
    const largest = Math.max(...rows.map((row) => row.size), Number.MIN_VALUE);
    // If not all rows fit, the last line shows how many are hidden.
    const shown = rows.length > maxRows ? rows.slice(0, maxRows - 1) : rows;
    const hidden = rows.length - shown.length;
    const headers = columns.map((name) => h("th", { scope: "col" }, name));
    const head = h("thead", { class: "visually-hidden" }, h("tr", {}, ...headers));
    const body = h("tbody", {}, ...shown.map((row) => renderRow(row, row.size / largest)));
    this.#body.replaceChildren(
      h("table", {}, h("caption", { class: "visually-hidden" }, title), head, body),
      ...(hidden > 0 ? [h("p", { class: "rest" }, `and ${hidden} more`)] : []),
    );
  }
}

/** The name of the row for what is outside of a list. */
export const OTHER = "(other)";

/** A name with its numbers. */
export interface Count {
  name: string;
  numbers: number[];
}

/** Appends what is outside the list, with the rows that do not fit. */
export function withOther(list: Count[], other: Count, maxRows: number): Count[] {
  const hasOther = other.numbers.some((number) => number > 0);
  if (list.length + (hasOther ? 1 : 0) <= maxRows) return hasOther ? [...list, other] : list;
  const folded = list.slice(maxRows - 1).reduce(
    (sum, { numbers }) => sum.map((number, index) => number + numbers[index]!),
    other.numbers,
  );
  return [...list.slice(0, maxRows - 1), { ...other, numbers: folded }];
}

function renderRow(row: Row, fraction: number): HTMLElement {
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--part", String(fraction));
  if (row.colour) bar.style.setProperty("--colour", row.colour);
  const name = row.href ? h("a", { href: row.href }, row.name) : h("span", {}, row.name);
  name.title = row.name;
  name.classList.add("name");
  const values = row.values.map((value) => h("td", { class: "numbers" }, value));
  return h("tr", {}, h("th", { scope: "row" }, bar, name), ...values);
}
