/** Watch sessions: from what a player does to what is told to the hub. Knows no socket and no storage. */

import type { Watch, WatchOptions } from "./api.js";
import { uuid } from "./id.js";
import { WatchClock } from "./watch-clock.js";

/** The room, as a watch session sees it. */
export interface Teller {
  tell(id: string, fields: object): void;
  /** Whatever plays, or did until the page was put aside. */
  readonly playing: Set<WatchSession>;
}

const whole = (ms: number | undefined): number | undefined =>
  Number.isFinite(ms) ? Math.round(ms!) : undefined;

export class WatchSession implements Watch {
  #content: string;
  #options: WatchOptions;
  #teller: Teller;
  #media: HTMLMediaElement | undefined;

  #id = "";
  /** Undefined until the first play. */
  #state: "playing" | "paused" | "ended" | undefined;
  #clock = new WatchClock();
  #startedAt = 0;
  #toldAt = 0;
  #positionMs: number | undefined;

  constructor(content: string, options: WatchOptions, teller: Teller) {
    this.#content = content;
    this.#options = options;
    this.#teller = teller;
  }

  get watchedMs(): number {
    return Math.round(this.#clock.elapsed);
  }

  play(positionMs?: number): void {
    if (this.#state === "playing") return;
    if (this.#state !== "paused") this.#begin();
    this.#clock.start();
    this.#teller.playing.add(this);
    this.#tell("playing", positionMs);
  }

  pause(positionMs?: number): void {
    if (this.#state === "playing") this.#stop("paused", positionMs);
  }

  seek(positionMs: number): void {
    this.#positionMs = positionMs;
    if (this.#state === "playing") this.#tell("playing", positionMs);
  }

  end(): void {
    if (this.#state && this.#state !== "ended") this.#stop("ended");
  }

  attach(media: HTMLMediaElement): () => void {
    const play = (): void => this.play();
    const pause = (): void => {
      if (!media.ended) this.pause(); // else `ended` follows at once
    };
    const handlers = {
      playing: play,
      pause,
      waiting: pause, // for data
      emptied: pause, // something else is loaded
      seeked: () => this.retell(),
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

  /** Says again what plays and how far it is: to a new socket, or after a seek. */
  retell(): void {
    if (this.#state === "playing") this.#tell("playing");
  }

  /** The page is put aside or gone, and what it plays with it. */
  suspend(): void {
    this.pause();
    this.#teller.playing.add(this); // to be resumed if the page comes back
  }

  resume(): void {
    this.#teller.playing.delete(this);
    if (!this.#media?.paused) this.play();
  }

  #begin(): void {
    this.#id = uuid();
    this.#clock = new WatchClock();
    this.#startedAt = Date.now();
  }

  #stop(state: "paused" | "ended", positionMs?: number): void {
    this.#clock.stop();
    this.#teller.playing.delete(this);
    this.#tell(state, positionMs);
  }

  #tell(
    state: "playing" | "paused" | "ended",
    positionMs = this.#media && this.#media.currentTime * 1000,
  ): void {
    this.#state = state;
    this.#positionMs = positionMs ?? this.#positionMs;
    // Of two states the later one holds: so no two are told of the same millisecond.
    this.#toldAt = Math.max(Date.now(), this.#toldAt + 1);
    this.#teller.tell(this.#id, {
      content: this.#content,
      state,
      watchedMs: this.watchedMs,
      startedAt: this.#startedAt,
      at: this.#toldAt,
      positionMs: whole(this.#positionMs),
      durationMs: whole(this.#options.durationMs ?? (this.#media && this.#media.duration * 1000)),
      props: this.#options.props,
    });
  }
}
