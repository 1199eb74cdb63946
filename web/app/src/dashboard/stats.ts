// The history as `GET /unified-stats` tells it, and how it is asked for.

import { authorization } from "../admin";

export const RANGES = {
  "24h": "24 hours",
  "7d": "7 days",
  "30d": "30 days",
  "12mo": "12 months",
} as const;

export type Range = keyof typeof RANGES;
export type Step = "hour" | "day" | "month";

export interface Totals {
  pageViews: number;
  visitors: number;
  watchSessions: number;
  watchedMs: number;
  joins: number;
  peakPresent: number;
  averagePresent: number;
}

/** One stretch of the range; `at` is its start. `moods` are person-milliseconds. */
export interface Bucket extends Totals {
  at: number;
  moods: Record<string, number>;
}

export interface Stats {
  range: Range;
  room: string | null;
  tz: string;
  from: number;
  to: number;
  step: Step;
  totals: Totals;
  previous: { from: number; to: number; totals: Totals };
  series: Bucket[];
  topPages: { path: string; pageViews: number }[];
  topContent: { content: string; watchSessions: number; watchedMs: number }[];
  topReferrers: { referrer: string; pageViews: number }[];
  moods: Record<string, number>;
  generatedAt: number;
}

/** What is asked for. */
export interface Question {
  range: Range;
  room: string;
}

/** The address of an answer. */
export function statsPath({ range, room }: Question, timeZone: string): string {
  const query = new URLSearchParams({ range, tz: timeZone });
  if (room) query.set("room", room);
  return `/unified-stats?${query}`;
}

/** Asks the hub. What it throws is a sentence for people. */
export async function fetchStats(question: Question, signal: AbortSignal): Promise<Stats> {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const path = statsPath(question, timeZone || "UTC");
  const answer = await fetch(path, { signal, headers: authorization() }).catch((error: unknown) => {
    throw signal.aborted ? error : new Error("The hub does not answer.");
  });
  const body: unknown = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body as Stats;
  const said = (body as { error?: { message?: string } } | null)?.error?.message;
  throw new Error(said ? `The hub says: ${said}.` : `The hub answers with ${answer.status}.`);
}

/** The end of a bucket: the next one's start. */
export function ends(stats: Stats): number[] {
  return stats.series.map((_, index) => stats.series[index + 1]?.at ?? Math.max(stats.to, stats.series[index]!.at + 1));
}
