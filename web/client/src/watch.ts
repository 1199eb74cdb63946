/** Watch sessions: turns player actions into events. Knows no socket and no storage. */

import type { Watch, WatchOptions } from "./api.js";
import { uuid } from "./id.js";

/** The `readyState` of a media element that can play on. */
const HAVE_FUTURE_DATA = 3;

/** What a watch session needs of its room. */
export interface Reporter {
  report(id: string, fields: Record<string, unknown>): void;
  /** Sessions that play. */
  readonly playing: Set<WatchSession>;
}

export interface WatchSession extends Watch {
  /** Reports the current state again if it plays: on a new socket, or after a seek. */
  report(): void;
  /** Plays again what was paused for the back/forward cache, unless the media does not. */
  resume(): void;
}

const toInteger = (ms: number | undefined): number | undefined =>
  Number.isFinite(ms) ? Math.round(ms!) : undefined;

export function createWatch(content: string, options: WatchOptions, { report, playing }: Reporter): WatchSession {
  let media: HTMLMediaElement | undefined;
  let id = "";
  /** Undefined until the first play. */
  let state: "playing" | "paused" | "ended" | undefined;
  /** Time played until `resumedAt`, by the monotonic clock: changes of the wall clock do not matter. */
  let watched = 0;
  let resumedAt = 0;
  let startedAt = 0;
  let reportedAt = 0;
  let position: number | undefined;

  const isPlaying = (): boolean => state === "playing";
  const watchedMs = (): number => Math.round(watched + (isPlaying() ? performance.now() - resumedAt : 0));

  function change(next: NonNullable<typeof state>, positionMs = media && media.currentTime * 1_000): void {
    watched = watchedMs();
    state = next;
    resumedAt = performance.now();
    if (isPlaying()) playing.add(session);
    else playing.delete(session);
    position = positionMs ?? position;
    // The hub keeps the state with the later `at`, so `at` must differ between states.
    reportedAt = Math.max(Date.now(), reportedAt + 1);
    report(id, {
      content,
      state,
      watchedMs: watched,
      startedAt,
      at: reportedAt,
      positionMs: toInteger(position),
      durationMs: toInteger(options.durationMs ?? (media && media.duration * 1_000)),
      props: options.props,
    });
  }

  const session: WatchSession = {
    get watchedMs() {
      return watchedMs();
    },
    play(positionMs) {
      if (isPlaying()) return;
      if (state !== "paused") {
        id = uuid();
        watched = 0;
        startedAt = Date.now();
      }
      change("playing", positionMs);
    },
    pause(positionMs) {
      if (isPlaying()) change("paused", positionMs);
    },
    seek(positionMs) {
      position = positionMs;
      if (isPlaying()) change("playing", positionMs);
    },
    end() {
      if (state && state !== "ended") change("ended");
    },
    attach(element) {
      if (!element) throw new TypeError("attach: no media element");
      media = element;
      const play = (): void => session.play();
      const pause = (): void => {
        if (!element.ended) session.pause(); // otherwise `ended` follows
      };
      const detached = new AbortController();
      const listeners = {
        playing: play,
        pause,
        waiting: pause, // buffering
        emptied: pause, // the source changes
        seeked: session.report,
        ended: session.end,
      };
      for (const [type, listener] of Object.entries(listeners)) element.addEventListener(type, listener, detached);
      if (!element.paused && element.readyState >= HAVE_FUTURE_DATA) play();
      return () => {
        detached.abort();
        pause();
        media = undefined;
      };
    },
    report() {
      if (isPlaying()) change("playing");
    },
    resume() {
      if (!media?.paused) session.play();
    },
  };
  return session;
}
