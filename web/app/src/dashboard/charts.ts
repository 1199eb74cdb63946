// What the four charts show of the history.

import { element } from "../dom";
import { moodVariable } from "../moods";
import { Chart, type Line, type Picture } from "./chart";
import { Dates, average, count, duration, plural } from "./format";
import { type Stats, ends } from "./stats";

/** More bands than this nobody tells apart; the rest is one. */
const MOST_MOODS = 6;

export class Charts {
  readonly #present: Chart;
  readonly #views: Chart;
  readonly #watched: Chart;
  readonly #moods: Chart;

  constructor() {
    const place = element("charts");
    this.#present = new Chart(place, "People present", "Nobody was here in this time.");
    this.#views = new Chart(place, "Page views and visitors", "No page was seen in this time.");
    this.#watched = new Chart(place, "Minutes watched", "Nothing was watched in this time.");
    this.#moods = new Chart(place, "Moods", "Nobody set a mood in this time.");
  }

  wait(): void {
    for (const chart of this.#all()) chart.wait();
  }

  say(words: string): void {
    for (const chart of this.#all()) chart.say(words);
  }

  show(stats: Stats): void {
    this.#present.show(presentPicture(stats));
    this.#views.show(viewsPicture(stats));
    this.#watched.show(watchedPicture(stats));
    this.#moods.show(moodsPicture(stats));
  }

  #all(): Chart[] {
    return [this.#present, this.#views, this.#watched, this.#moods];
  }
}

function common(stats: Stats): Pick<Picture, "edges" | "step" | "dates" | "timeZone"> {
  const edges = [...stats.series.map((bucket) => bucket.at), ends(stats).at(-1) ?? stats.to];
  return { edges, step: stats.step, dates: new Dates(stats.tz), timeZone: stats.tz };
}

/** "most on Mon 3 Nov: 12", of whatever is the most. */
function most(stats: Stats, values: number[], format: (value: number) => string): string {
  const largest = Math.max(0, ...values);
  if (largest === 0) return "";
  const at = stats.series[values.indexOf(largest)]!.at;
  return ` Most: ${format(largest)}, ${new Dates(stats.tz).bucket(at, stats.step)}.`;
}

export function presentPicture(stats: Stats): Picture {
  const peaks = stats.series.map((bucket) => bucket.peakPresent);
  return {
    ...common(stats),
    summary: `On average ${average(stats.totals.averagePresent)}.${most(stats, peaks, count)}`,
    lines: [
      { label: "Average", colour: "--chart-1", kind: "area", values: stats.series.map((b) => b.averagePresent) },
      { label: "Peak", colour: "--chart-2", kind: "line", values: peaks },
    ],
    format: average,
    whole: false,
  };
}

export function viewsPicture(stats: Stats): Picture {
  const views = stats.series.map((bucket) => bucket.pageViews);
  const { pageViews, visitors } = stats.totals;
  const told = `${plural(pageViews, "page view", "page views")} by ${plural(visitors, "visitor", "visitors")}.`;
  return {
    ...common(stats),
    summary: told + most(stats, views, count),
    lines: [
      { label: "Page views", colour: "--chart-1", kind: "bars", values: views },
      { label: "Visitors", colour: "--chart-2", kind: "line", values: stats.series.map((b) => b.visitors) },
    ],
    format: count,
    whole: true,
  };
}

export function watchedPicture(stats: Stats): Picture {
  const minutes = stats.series.map((bucket) => bucket.watchedMs / 60_000);
  const { watchedMs, watchSessions } = stats.totals;
  const told = `${duration(watchedMs)} in ${plural(watchSessions, "session", "sessions")}.`;
  return {
    ...common(stats),
    summary: told + most(stats, minutes, (value) => duration(value * 60_000)),
    lines: [{ label: "Minutes", colour: "--chart-3", kind: "bars", values: minutes }],
    format: average,
    whole: false,
  };
}

/** Person-time in each mood, over the length of the bucket: how many people were in it on average. */
export function moodsPicture(stats: Stats): Picture {
  const until = ends(stats);
  const people = (mood: string): number[] =>
    stats.series.map((bucket, index) => (bucket.moods[mood] ?? 0) / (until[index]! - bucket.at));
  const ranked = Object.entries(stats.moods)
    .filter(([, ms]) => ms > 0)
    .sort(([, a], [, b]) => b - a);
  const lines: Line[] = ranked
    .slice(0, MOST_MOODS)
    .map(([mood]) => ({ label: mood, colour: moodVariable(mood), kind: "stack", values: people(mood) }));
  const rest = ranked.slice(MOST_MOODS).map(([mood]) => people(mood));
  if (rest.length > 0) {
    const values = stats.series.map((_, index) => rest.reduce((sum, one) => sum + one[index]!, 0));
    lines.push({ label: "others", colour: "--mood-none", kind: "stack", values });
  }
  const all = ranked.reduce((sum, [, ms]) => sum + ms, 0);
  const shares = ranked.slice(0, 3).map(([mood, ms]) => `${mood} ${Math.round((ms / all) * 100)} %`);
  return {
    ...common(stats),
    summary: shares.length > 0 ? `Mostly ${shares.join(", ")}.` : "No moods.",
    lines: lines.length > 0 ? lines : [{ label: "none", colour: "--mood-none", kind: "stack", values: people("") }],
    format: average,
    whole: false,
  };
}
