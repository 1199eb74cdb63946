/** Watch sessions: turns player actions into events. Knows no socket and no storage. */

import type { Watch, WatchOptions } from "./api.js";
import { uuid } from "./id.js";
import { WatchClock } from "./watch-clock.js";

/** What a watch session needs of its room. */
export interface Reporter {
  /** The wall clock, the hub's if it is known, minus the monotonic clock. */
  offset(): number;
  report(id: string, fields: object): void;
  /** Sessions that play, or that play again when the page is resumed. */
  readonly playing: Set<WatchSession>;
}

const toInteger = (ms: number | undefined): number | undefined =>
  Number.isFinite(ms) ? Math.round(ms!) : undefined;

export class WatchSession implements Watch {
  #content: string;
  #options: WatchOptions;
  #reporter: Reporter;
  #media: HTMLMediaElement | undefined;

  #id = "";
  /** Undefined until the first play. */
  #state: "playing" | "paused" | "ended" | undefined;
  #clock = new WatchClock();
  /** By the monotonic clock, so that a correction of the wall clock moves both times alike. */
  #startedAt = 0;
  #reportedAt = 0;
  #positionMs: number | undefined;

  constructor(content: string, options: WatchOptions, reporter: Reporter) {
    this.#content = content;
    this.#options = options;
    this.#reporter = reporter;
  }

  get watchedMs(): number {
    return Math.round(this.#clock.elapsed);
  }

  play(positionMs?: number): void {
    if (this.#state === "playing") return;
    if (this.#state !== "paused") this.#begin();
    this.#clock.start();
    this.#reporter.playing.add(this);
    this.#report("playing", positionMs);
  }

  pause(positionMs?: number): void {
    if (this.#state === "playing") this.#stop("paused", positionMs);
  }

  seek(positionMs: number): void {
    this.#positionMs = positionMs;
    if (this.#state === "playing") this.#report("playing", positionMs);
  }

  end(): void {
    if (this.#state && this.#state !== "ended") this.#stop("ended");
  }

  attach(media: HTMLMediaElement): () => void {
    if (!media) throw new TypeError("attach: there is no media element");
    const play = (): void => this.play();
    const pause = (): void => {
      if (!media.ended) this.pause(); // otherwise `ended` follows
    };
    const handlers = {
      playing: play,
      pause,
      waiting: pause, // buffering
      emptied: pause, // the source changes
      seeked: () => this.report(),
      ended: () => this.end(),
    };
    this.#media = media;
    const listeners = Object.entries(handlers);
    for (const [type, handler] of listeners) media.addEventListener(type, handler);
    if (!media.paused && media.readyState >= media.HAVE_FUTURE_DATA) play();
    return () => {
      for (const [type, handler] of listeners) media.removeEventListener(type, handler);
      pause();
      this.#media = undefined;
    };
  }

  /** Reports the current state again if it plays: on a new socket, or after a seek. */
  report(): void {
    if (this.#state === "playing") this.#report("playing");
  }

  /** Pauses because the page is hidden for good or for the back/forward cache. */
  suspend(): void {
    this.pause();
    this.#reporter.playing.add(this); // resumes with the page
  }

  resume(): void {
    this.#reporter.playing.delete(this);
    if (!this.#media?.paused) this.play();
  }

  #begin(): void {
    this.#id = uuid();
    this.#clock = new WatchClock();
    this.#startedAt = performance.now();
  }

  #stop(state: "paused" | "ended", positionMs?: number): void {
    this.#clock.stop();
    this.#reporter.playing.delete(this);
    this.#report(state, positionMs);
  }

  #report(
    state: "playing" | "paused" | "ended",
    positionMs = this.#media && this.#media.currentTime * 1000,
  ): void {
    this.#state = state;
    this.#positionMs = positionMs ?? this.#positionMs;
    // The hub keeps the state with the later `at`, so `at` must differ between states, also rounded and corrected.
    this.#reportedAt = Math.max(performance.now(), this.#reportedAt + 2);
    const offset = this.#reporter.offset();
    this.#reporter.report(this.#id, {
      content: this.#content,
      state,
      watchedMs: this.watchedMs,
      startedAt: toInteger(offset + this.#startedAt),
      at: toInteger(offset + this.#reportedAt),
      positionMs: toInteger(this.#positionMs),
      durationMs: toInteger(this.#options.durationMs ?? (this.#media && this.#media.duration * 1000)),
      props: this.#options.props,
    });
  }
}
