// One chart: a drawing for the eyes, a sentence for the ears, and the numbers as a table for whoever wants them.

import uPlot from "uplot";
import { h, setText } from "../dom";
import type { Dates } from "./format";
import type { Step } from "./stats";

export interface Line {
  label: string;
  /** The CSS variable of its colour. */
  colour: string;
  kind: "area" | "line" | "bars" | "stack";
  /** One value for each bucket, as people read it. */
  values: number[];
}

export interface Picture {
  /** The chart in one sentence. */
  summary: string;
  /** Start of each bucket, and the end of the last, in ms. */
  edges: number[];
  step: Step;
  dates: Dates;
  timeZone: string;
  lines: Line[];
  format: (value: number) => string;
  /** Counts have no ticks between whole numbers. */
  whole: boolean;
}

const HEIGHT = 224; // px; the CSS keeps as much free before there is a drawing
const FONT = "12px system-ui, sans-serif";
const HOUR = 3_600; // s
const DAY = 24 * HOUR;

/** Between the ticks of the numbers: 1, 2 or 5 of anything from a thousandth to a million. */
const STEPS = [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((step) => Number(`${step}e${power}`)));

export class Chart {
  readonly #summary = h("p", { class: "summary soft" });
  readonly #legend = h("ul", { class: "legend" });
  readonly #plot = h("div", { class: "plot", role: "img" });
  readonly #table = h("div", { class: "numbers-table", tabindex: "0", role: "region" });
  readonly #details = h("details", {}, h("summary", {}, "Numbers"), this.#table);
  readonly #title: string;
  readonly #empty: string;
  #picture: Picture | undefined;
  #drawn: uPlot | undefined;

  constructor(place: HTMLElement, title: string, empty: string) {
    this.#title = title;
    this.#empty = empty;
    this.#table.setAttribute("aria-label", `${title}: numbers`);
    place.append(
      h("figure", { class: "card chart" }, h("figcaption", {}, h("h3", {}, title), this.#summary),
        this.#legend, this.#plot, this.#details),
    );
    this.wait();
    new ResizeObserver(() => this.#resize()).observe(this.#plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    this.#details.addEventListener("toggle", () => this.#fillTable());
  }

  /** There is nothing to show yet. */
  wait(): void {
    this.#clear("Waiting for the history.");
    this.#plot.append(h("div", { class: "skeleton" }));
  }

  /** Instead of a drawing, why there is none. */
  say(words: string): void {
    this.#clear(words);
    this.#plot.append(h("p", { class: "nothing" }, words));
  }

  show(picture: Picture): void {
    this.#picture = picture;
    this.#plot.setAttribute("aria-label", `${this.#title}. ${picture.summary}`);
    setText(this.#summary, picture.summary);
    this.#legend.replaceChildren(...picture.lines.map((line) => {
      const swatch = h("span", { class: `swatch ${line.kind}` });
      swatch.style.setProperty("--colour", `var(${line.colour})`);
      return h("li", {}, swatch, line.label);
    }));
    this.#details.classList.remove("unseen");
    this.#fillTable();
    this.#draw();
  }

  #clear(words: string): void {
    this.#picture = undefined;
    this.#drawn?.destroy();
    this.#drawn = undefined;
    this.#plot.replaceChildren();
    this.#plot.setAttribute("aria-label", `${this.#title}. ${words}`);
    setText(this.#summary, "\u00a0");
    this.#legend.replaceChildren();
    this.#details.classList.add("unseen");
  }

  #draw(): void {
    const picture = this.#picture;
    if (!picture) return;
    this.#drawn?.destroy();
    this.#plot.replaceChildren();
    const options = optionsOf(picture, this.#plot.clientWidth, (index) => this.#point(index));
    this.#drawn = new uPlot(options, dataOf(picture), this.#plot);
    if (picture.lines.every((line) => line.values.every((value) => value === 0))) {
      this.#plot.append(h("p", { class: "nothing" }, this.#empty));
    }
  }

  #resize(): void {
    const width = this.#plot.clientWidth;
    if (this.#drawn && width > 0 && width !== this.#drawn.width) this.#drawn.setSize({ width, height: HEIGHT });
  }

  /** Says what stands under the pointer, or again what the whole is. */
  #point(index: number | null | undefined): void {
    const picture = this.#picture;
    if (!picture) return;
    setText(this.#summary, index === null || index === undefined ? picture.summary : bucketWords(picture, index));
  }

  /** Hundreds of rows cost time, so they are made for whoever opens the table. */
  #fillTable(): void {
    const picture = this.#picture;
    if (!picture || !this.#details.open) return this.#table.replaceChildren();
    const head = ["When", ...picture.lines.map((line) => line.label)].map((name) => h("th", { scope: "col" }, name));
    const rows = picture.lines[0]?.values.map((_, index) =>
      h("tr", {}, h("th", { scope: "row" }, bucketOf(picture, index)),
        ...picture.lines.map((line) => h("td", { class: "numbers" }, picture.format(line.values[index]!)))),
    );
    this.#table.replaceChildren(
      h("table", {}, h("caption", { class: "heard" }, this.#title), h("thead", {}, h("tr", {}, ...head)),
        h("tbody", {}, ...(rows ?? []))),
    );
  }
}

function bucketOf({ dates, edges, step }: Picture, index: number): string {
  return dates.bucket(edges[index]!, step);
}

/** The numbers of one bucket in one line; of a stack the largest three. */
export function bucketWords(picture: Picture, index: number): string {
  const told = picture.lines.map(({ label, values, kind }) => ({ label, kind, value: values[index]! }));
  const stacked = told.filter(({ kind, value }) => kind === "stack" && value > 0);
  const shown = told[0]?.kind === "stack" ? stacked.sort((a, b) => b.value - a.value).slice(0, 3) : told;
  const words = shown.map(({ label, value }) => `${label.toLowerCase()} ${picture.format(value)}`);
  return [bucketOf(picture, index), ...words].join(" · ");
}

/** Each bucket is drawn at its middle. Stacked lines stand on the sum of those before them. */
export function dataOf({ edges, lines }: Picture): uPlot.AlignedData {
  const middles = edges.slice(0, -1).map((edge, index) => (edge + edges[index + 1]!) / 2_000);
  let below = middles.map(() => 0);
  const drawn = lines.map((line) => {
    if (line.kind !== "stack") return line.values;
    below = below.map((sum, index) => sum + line.values[index]!);
    return below;
  });
  return [middles, ...inDrawingOrder(lines, drawn)];
}

/** The highest of a stack is drawn first, so that each of the lower ones covers its own part. */
function inDrawingOrder<T>(lines: Line[], things: T[]): T[] {
  return lines[0]?.kind === "stack" ? things.reverse() : things;
}

function optionsOf(picture: Picture, width: number, point: (index: number | null | undefined) => void): uPlot.Options {
  const styles = getComputedStyle(document.documentElement);
  const colour = (name: string): string => styles.getPropertyValue(name).trim();
  const { edges, dates, timeZone } = picture;
  const [first, last] = [edges[0]! / 1000, edges.at(-1)! / 1000];
  const axis: uPlot.Axis = {
    stroke: colour("--soft"),
    font: FONT,
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
  };
  return {
    width,
    height: HEIGHT,
    padding: [12, 20, 0, 0],
    legend: { show: false },
    tzDate: (at) => uPlot.tzDate(new Date(at * 1000), timeZone),
    cursor: { y: false, drag: { x: false, y: false } },
    scales: {
      x: { range: () => [first, last] },
      y: { range: (_, __, most) => [0, picture.whole ? Math.max(most * 1.08, 4) : most * 1.08 || 1] },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 28,
        space: 64,
        values: (_, ticks, __, ___, every) => ticks.map((tick) => tickWords(tick * 1000, every, dates)),
      },
      {
        ...axis,
        size: (_, values) => 16 + 7 * Math.max(...(values ?? [""]).map((value) => value.length)),
        space: 44,
        incrs: picture.whole ? STEPS.filter((step) => step >= 1) : STEPS,
        values: (_, ticks) => ticks.map(picture.format),
      },
    ],
    series: [{}, ...inDrawingOrder(picture.lines, picture.lines.map((line) => seriesOf(line, colour)))],
    hooks: { setCursor: [(plot) => point(plot.cursor.idx)] },
  };
}

function seriesOf({ kind, colour: name, label, values }: Line, colour: (name: string) => string): uPlot.Series {
  const paint = colour(name);
  const common: uPlot.Series = { label, stroke: paint, width: 2, points: { show: false } };
  switch (kind) {
    case "line":
      return common;
    case "area":
      return { ...common, fill: `${paint}38` };
    case "bars":
      return { ...common, width: 0, fill: paint, paths: uPlot.paths.bars!({ size: [0.72, 36], radius: 0.12 }) };
    case "stack":
      // A line in the colour of the ground keeps neighbours apart for every eye, where there is room for it.
      return values.length > 48
        ? { ...common, width: 1, fill: paint }
        : { ...common, stroke: colour("--raised"), width: 1.5, fill: paint };
  }
}

function tickWords(at: number, every: number, dates: Dates): string {
  if (every >= 28 * DAY) return dates.month(at);
  if (every >= DAY) return dates.day(at);
  const time = dates.time(at);
  return time === "00:00" ? dates.day(at) : time;
}
