// A chart: a uPlot drawing, a summary for screen readers, and the numbers as a table.

import uPlot from "uplot";
import { h, setText } from "../dom";
import type { Dates } from "./format";
import type { Step } from "./stats";

export interface Series {
  label: string;
  /** CSS variable of the colour. */
  colour: string;
  kind: "area" | "line" | "bars" | "stack";
  /** One value per bucket, in the displayed unit. */
  values: number[];
}

export interface ChartData {
  /** The chart in one sentence. */
  summary: string;
  /** Start of each bucket, and end of the last one, in ms. */
  edges: number[];
  step: Step;
  dates: Dates;
  timeZone: string;
  series: Series[];
  format: (value: number) => string;
  /** The ticks are integers only. */
  integer: boolean;
}

const HEIGHT = 224; // px; the CSS reserves the same height
const FONT = "12px system-ui, sans-serif";
const HOUR = 3_600; // s
const DAY = 24 * HOUR;

/** Tick increments: 1, 2 or 5 times a power of ten, from 0.001 to 5,000,000. */
const INCREMENTS = [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((step) => Number(`${step}e${power}`)));

export class Chart {
  readonly #summary = h("p", { class: "summary soft" });
  readonly #legend = h("ul", { class: "legend" });
  readonly #plot = h("div", { class: "plot", role: "img" });
  readonly #table = h("div", { class: "numbers-table", tabindex: "0", role: "region" });
  readonly #details = h("details", {}, h("summary", {}, "Numbers"), this.#table);
  readonly #title: string;
  readonly #empty: string;
  #data: ChartData | undefined;
  #uplot: uPlot | undefined;

  constructor(container: HTMLElement, title: string, empty: string) {
    this.#title = title;
    this.#empty = empty;
    this.#table.setAttribute("aria-label", `${title}: numbers`);
    container.append(
      h("figure", { class: "card chart" }, h("figcaption", {}, h("h3", {}, title), this.#summary),
        this.#legend, this.#plot, this.#details),
    );
    this.showLoading();
    new ResizeObserver(() => this.#resize()).observe(this.#plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    this.#details.addEventListener("toggle", () => this.#fillTable());
  }

  showLoading(): void {
    this.#clear("Loading.");
    this.#plot.append(h("div", { class: "skeleton" }));
  }

  /** Shows a text instead of the drawing. */
  showMessage(text: string): void {
    this.#clear(text);
    this.#plot.append(h("p", { class: "empty" }, text));
  }

  show(data: ChartData): void {
    this.#data = data;
    this.#plot.setAttribute("aria-label", `${this.#title}. ${data.summary}`);
    setText(this.#summary, data.summary);
    this.#legend.replaceChildren(...data.series.map(({ label, kind, colour }) => {
      const swatch = h("span", { class: `swatch ${kind}` });
      swatch.style.setProperty("--colour", `var(${colour})`);
      return h("li", {}, swatch, label);
    }));
    this.#details.classList.remove("invisible");
    this.#fillTable();
    this.#draw();
  }

  #clear(text: string): void {
    this.#data = undefined;
    this.#uplot?.destroy();
    this.#uplot = undefined;
    this.#plot.replaceChildren();
    this.#plot.setAttribute("aria-label", `${this.#title}. ${text}`);
    setText(this.#summary, "\u00a0");
    this.#legend.replaceChildren();
    this.#details.classList.add("invisible");
  }

  #draw(): void {
    const data = this.#data;
    if (!data) return;
    this.#uplot?.destroy();
    this.#plot.replaceChildren();
    const options = toOptions(data, this.#plot.clientWidth, (index) => this.#showBucket(index));
    this.#uplot = new uPlot(options, toAligned(data), this.#plot);
    if (data.series.every(({ values }) => values.every((value) => value === 0))) {
      this.#plot.append(h("p", { class: "empty" }, this.#empty));
    }
  }

  #resize(): void {
    const width = this.#plot.clientWidth;
    if (this.#uplot && width > 0 && width !== this.#uplot.width) this.#uplot.setSize({ width, height: HEIGHT });
  }

  /** Shows the bucket under the pointer; without one, the summary. */
  #showBucket(index: number | null | undefined): void {
    const data = this.#data;
    if (!data) return;
    setText(this.#summary, index === null || index === undefined ? data.summary : bucketText(data, index));
  }

  /** Renders the table only while it is open: it may have hundreds of rows. */
  #fillTable(): void {
    const data = this.#data;
    if (!data || !this.#details.open) return this.#table.replaceChildren();
    const head = ["When", ...data.series.map(({ label }) => label)].map((name) => h("th", { scope: "col" }, name));
    const rows = data.series[0]?.values.map((_, index) =>
      h("tr", {}, h("th", { scope: "row" }, bucketLabel(data, index)),
        ...data.series.map(({ values }) => h("td", { class: "numbers" }, data.format(values[index]!)))),
    );
    this.#table.replaceChildren(
      h("table", {}, h("caption", { class: "visually-hidden" }, this.#title), h("thead", {}, h("tr", {}, ...head)),
        h("tbody", {}, ...(rows ?? []))),
    );
  }
}

function bucketLabel({ dates, edges, step }: ChartData, index: number): string {
  return dates.bucket(edges[index]!, step);
}

/** Formats the values of one bucket in one line; of a stack, the three largest. */
export function bucketText(data: ChartData, index: number): string {
  const all = data.series.map(({ label, values, kind }) => ({ label, kind, value: values[index]! }));
  const stacked = all.filter(({ kind, value }) => kind === "stack" && value > 0);
  const shown = all[0]?.kind === "stack" ? stacked.sort((a, b) => b.value - a.value).slice(0, 3) : all;
  const texts = shown.map(({ label, value }) => `${label.toLowerCase()} ${data.format(value)}`);
  return [bucketLabel(data, index), ...texts].join(" · ");
}

/** Returns uPlot's data. Each bucket is drawn at its middle; stacked series are cumulative. */
export function toAligned({ edges, series }: ChartData): uPlot.AlignedData {
  const middles = edges.slice(0, -1).map((edge, index) => (edge + edges[index + 1]!) / 2_000);
  let sums = middles.map(() => 0);
  const drawn = series.map(({ kind, values }) => {
    if (kind !== "stack") return values;
    sums = sums.map((sum, index) => sum + values[index]!);
    return sums;
  });
  return [middles, ...inDrawingOrder(series, drawn)];
}

/** Reverses the items of a stack: the highest sum is drawn first, and the lower ones cover their parts of it. */
function inDrawingOrder<T>(series: Series[], items: T[]): T[] {
  return series[0]?.kind === "stack" ? items.reverse() : items;
}

type OnPoint = (index: number | null | undefined) => void;

function toOptions(data: ChartData, width: number, onPoint: OnPoint): uPlot.Options {
  const styles = getComputedStyle(document.documentElement);
  const colour = (name: string): string => styles.getPropertyValue(name).trim();
  const { edges, dates, timeZone } = data;
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
      y: { range: (_, __, max) => [0, data.integer ? Math.max(max * 1.08, 4) : max * 1.08 || 1] },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 28,
        space: 64,
        values: (_, ticks, __, ___, step) => ticks.map((tick) => tickText(tick * 1000, step, dates)),
      },
      {
        ...axis,
        size: (_, values) => 16 + 7 * Math.max(...(values ?? [""]).map((value) => value.length)),
        space: 44,
        incrs: data.integer ? INCREMENTS.filter((step) => step >= 1) : INCREMENTS,
        values: (_, ticks) => ticks.map(data.format),
      },
    ],
    series: [{}, ...inDrawingOrder(data.series, data.series.map((series) => toPlotSeries(series, colour)))],
    hooks: { setCursor: [(plot) => onPoint(plot.cursor.idx)] },
  };
}

function toPlotSeries({ kind, colour: name, label, values }: Series, colour: (name: string) => string): uPlot.Series {
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
      // With few buckets, a border in the background colour separates the bands, also for colour blindness.
      return values.length > 48
        ? { ...common, width: 1, fill: paint }
        : { ...common, stroke: colour("--raised"), width: 1.5, fill: paint };
  }
}

function tickText(at: number, step: number, dates: Dates): string {
  if (step >= 28 * DAY) return dates.month(at);
  if (step >= DAY) return dates.day(at);
  const time = dates.time(at);
  return time === "00:00" ? dates.day(at) : time;
}
