// The hub's health, polled while the page is visible.

import { element, setText } from "../dom";
import { hub } from "../hub";
import { age, plural } from "./format";
import { pollWhileVisible } from "./poll";

export interface Health {
  status: "ok" | "degraded";
  pendingPageViews: number;
  pendingWatchSessions: number;
  lastFlush: number | null;
  oldestUnflushedMs?: number | null;
  timestamp: number;
}

const INTERVAL = 15_000; // ms
const ANSWER_WITHIN = 5_000; // ms; a dead path gives no answer for minutes

/** The health in one line. */
export function healthText(health: Health): string {
  const count = health.pendingPageViews + health.pendingWatchSessions;
  const saved =
    health.lastFlush === null ? "nothing saved yet" : `last saved ${age(health.timestamp - health.lastFlush)} ago`;
  const pending = count === 0 ? "nothing pending" : `${plural(count, "event", "events")} pending`;
  const { oldestUnflushedMs } = health;
  const oldest = count > 0 && typeof oldestUnflushedMs === "number" ? `, the oldest for ${age(oldestUnflushedMs)}` : "";
  const state = health.status === "ok" ? "The hub is healthy" : "The hub is degraded";
  return `${state} · ${saved} · ${pending}${oldest}`;
}

export async function refreshHealth(): Promise<void> {
  try {
    // A degraded hub responds with 503 and the same body.
    const health = (await (await fetch(`${hub()}/health`, { signal: AbortSignal.timeout(ANSWER_WITHIN) })).json()) as Health;
    show(health.status, healthText(health));
  } catch {
    show("unreachable", "The hub does not respond.");
  }
}

function show(state: "ok" | "degraded" | "unreachable", text: string): void {
  element("health").className = `health ${state}`;
  setText(element("health-text"), text);
}

export function pollHealth(): void {
  pollWhileVisible(INTERVAL, refreshHealth);
}
