// Types and requests of `GET /unified-stats`.

import { authHeaders } from "../admin-token";
import { hub, isElsewhere } from "../hub";

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
  /** Missing from hubs before sits. */
  sits?: Sits;
}

/** Sits of a period: those that began in it, those that came to their end, and their minutes. */
export interface Sits {
  begun: number;
  completed: number;
  minutes: number;
}

/** One bucket of the series; `at` is its start. `moods` are person-milliseconds. */
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
  /** The sums of what is outside the lists. */
  other: {
    pages: { pageViews: number };
    content: { watchSessions: number; watchedMs: number };
    referrers: { pageViews: number };
  };
  moods: Record<string, number>;
  generatedAt: number;
}

export interface StatsQuery {
  range: Range;
  room: string;
}

/** Returns path and query of the request. */
export function statsPath({ range, room }: StatsQuery, timeZone: string): string {
  const params = new URLSearchParams({ range, tz: timeZone });
  if (room) params.set("room", room);
  return `/unified-stats?${params}`;
}

/** The longest wait for an answer, in ms: a dead path gives none for minutes. */
const ANSWER_WITHIN = 30_000;

/** Requests the statistics. Throws an Error whose message can be shown on the page. */
export async function fetchStats(query: StatsQuery, signal: AbortSignal): Promise<Stats> {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const path = statsPath(query, timeZone || "UTC");
  const either = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_WITHIN)]);
  const response = await fetch(hub() + path, { signal: either, headers: authHeaders() }).catch((error: unknown) => {
    throw signal.aborted ? error : new Error("The hub does not respond.");
  });
  const body: unknown = await response.json().catch(() => null);
  if (response.ok && body !== null) return body as Stats;
  // The hub itself answers with the form; a static host cannot.
  if (response.status === 401 && isElsewhere()) location.assign(`token.html${location.search}`);
  const message = (body as { error?: { message?: string } } | null)?.error?.message;
  throw new Error(message ? `The hub reports: ${message}.` : `The hub responded with ${response.status}.`);
}

/** Returns the end of each bucket: the start of the next one. */
export function bucketEnds(stats: Stats): number[] {
  return stats.series.map((_, index) => stats.series[index + 1]?.at ?? Math.max(stats.to, stats.series[index]!.at + 1));
}
