// How the hub is: asked every now and then while somebody looks.

import { element, setText } from "../dom";
import { age, plural } from "./format";
import { whileVisible } from "./visible";

export interface Health {
  status: "ok" | "degraded";
  pendingPageViews: number;
  pendingWatchSessions: number;
  lastFlush: number | null;
  oldestUnflushedMs?: number | null;
  timestamp: number;
}

const EVERY = 15_000; // ms

/** The hub's state in one line. */
export function healthWords(health: Health): string {
  const pending = health.pendingPageViews + health.pendingWatchSessions;
  const written =
    health.lastFlush === null
      ? "nothing written yet"
      : `last written ${age(health.timestamp - health.lastFlush)} ago`;
  const waiting = pending === 0 ? "nothing waits" : `${plural(pending, "event waits", "events wait")} to be written`;
  const oldest =
    pending > 0 && typeof health.oldestUnflushedMs === "number"
      ? `, the oldest for ${age(health.oldestUnflushedMs)}`
      : "";
  const state = health.status === "ok" ? "The hub is well" : "The hub is degraded";
  return `${state} · ${written} · ${waiting}${oldest}`;
}

/** Asks now, besides. */
export async function askHealth(): Promise<void> {
  try {
    // Degraded comes as 503, with the same body.
    const health = (await (await fetch("/health")).json()) as Health;
    show(health.status, healthWords(health));
  } catch {
    show("gone", "The hub does not answer.");
  }
}

function show(state: "ok" | "degraded" | "gone", words: string): void {
  element("health").className = `health ${state}`;
  setText(element("health-words"), words);
}

export function watchHealth(): void {
  whileVisible(EVERY, askHealth);
}
