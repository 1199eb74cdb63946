// The four charts of the history.

import { element } from "../dom";
import { moodVariable } from "../moods";
import { Chart, type ChartData, type Series } from "./chart";
import { Dates, average, count, duration, plural } from "./format";
import { type Stats, bucketEnds } from "./stats";

/** Maximum bands; the other moods share one. More could not be distinguished. */
const MAX_MOODS = 6;

export class Charts {
  readonly #present: Chart;
  readonly #views: Chart;
  readonly #watched: Chart;
  readonly #moods: Chart;

  constructor() {
    const container = element("charts");
    this.#present = new Chart(container, "People present", "No people were here in this period.");
    this.#views = new Chart(container, "Page views and visitors", "No page views in this period.");
    this.#watched = new Chart(container, "Minutes watched", "Nothing was watched in this period.");
    this.#moods = new Chart(container, "Moods", "No moods were set in this period.");
  }

  showLoading(): void {
    for (const chart of this.#all()) chart.showLoading();
  }

  showMessage(text: string): void {
    for (const chart of this.#all()) chart.showMessage(text);
  }

  show(stats: Stats): void {
    this.#present.show(presentData(stats));
    this.#views.show(viewsData(stats));
    this.#watched.show(watchedData(stats));
    this.#moods.show(moodsData(stats));
  }

  #all(): Chart[] {
    return [this.#present, this.#views, this.#watched, this.#moods];
  }
}

function commonData(stats: Stats): Pick<ChartData, "edges" | "step" | "dates" | "timeZone"> {
  const edges = [...stats.series.map((bucket) => bucket.at), bucketEnds(stats).at(-1) ?? stats.to];
  return { edges, step: stats.step, dates: new Dates(stats.tz), timeZone: stats.tz };
}

/** Returns " Most: 12, Mon 3 Nov." for the largest value, or nothing. */
function most(stats: Stats, values: number[], format: (value: number) => string): string {
  const largest = Math.max(0, ...values);
  if (largest === 0) return "";
  const at = stats.series[values.indexOf(largest)]!.at;
  return ` Most: ${format(largest)}, ${new Dates(stats.tz).bucket(at, stats.step)}.`;
}

export function presentData(stats: Stats): ChartData {
  const peaks = stats.series.map((bucket) => bucket.peakPresent);
  return {
    ...commonData(stats),
    summary: `On average ${average(stats.totals.averagePresent)}.${most(stats, peaks, count)}`,
    series: [
      { label: "Average", colour: "--chart-1", kind: "area", values: stats.series.map((b) => b.averagePresent) },
      { label: "Peak", colour: "--chart-2", kind: "line", values: peaks },
    ],
    format: average,
    integer: false,
  };
}

export function viewsData(stats: Stats): ChartData {
  const views = stats.series.map((bucket) => bucket.pageViews);
  const { pageViews, visitors } = stats.totals;
  const total = `${plural(pageViews, "page view", "page views")} by ${plural(visitors, "visitor", "visitors")}.`;
  return {
    ...commonData(stats),
    summary: total + most(stats, views, count),
    series: [
      { label: "Page views", colour: "--chart-1", kind: "bars", values: views },
      { label: "Visitors", colour: "--chart-2", kind: "line", values: stats.series.map((b) => b.visitors) },
    ],
    format: count,
    integer: true,
  };
}

export function watchedData(stats: Stats): ChartData {
  const minutes = stats.series.map((bucket) => bucket.watchedMs / 60_000);
  const { watchedMs, watchSessions } = stats.totals;
  const total = `${duration(watchedMs)} in ${plural(watchSessions, "session", "sessions")}.`;
  return {
    ...commonData(stats),
    summary: total + most(stats, minutes, (value) => duration(value * 60_000)),
    series: [{ label: "Minutes", colour: "--chart-3", kind: "bars", values: minutes }],
    format: average,
    integer: false,
  };
}

/** Average number of people in each mood: person-time divided by the time of the bucket that has passed. */
export function moodsData(stats: Stats): ChartData {
  const ends = bucketEnds(stats).map((end) => Math.min(end, stats.generatedAt));
  const people = (mood: string): number[] =>
    stats.series.map((bucket, index) => (bucket.moods[mood] ?? 0) / Math.max(1, ends[index]! - bucket.at));
  const ranked = Object.entries(stats.moods)
    .filter(([, ms]) => ms > 0)
    .sort(([, a], [, b]) => b - a);
  const series: Series[] = ranked
    .slice(0, MAX_MOODS)
    .map(([mood]) => ({ label: mood, colour: moodVariable(mood), kind: "stack", values: people(mood) }));
  const rest = ranked.slice(MAX_MOODS).map(([mood]) => people(mood));
  if (rest.length > 0) {
    const values = stats.series.map((_, index) => rest.reduce((sum, values) => sum + values[index]!, 0));
    series.push({ label: "others", colour: "--mood-none", kind: "stack", values });
  }
  const all = ranked.reduce((sum, [, ms]) => sum + ms, 0);
  const shares = ranked.slice(0, 3).map(([mood, ms]) => `${mood} ${Math.round((ms / all) * 100)} %`);
  return {
    ...commonData(stats),
    summary: shares.length > 0 ? `Mostly ${shares.join(", ")}.` : "No moods.",
    series: series.length > 0 ? series : [{ label: "none", colour: "--mood-none", kind: "stack", values: people("") }],
    format: average,
    integer: false,
  };
}
