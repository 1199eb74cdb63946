// The breathing circle: a browser animation, and a text that changes once a second.
//
// Both follow one clock, the hub's, so that all visitors breathe together. The clock may run a little fast or slow
// while it is corrected: the animation's speed follows, so that the circle never jumps.

import { element, setText } from "../dom";
import { type Rhythm, cycleMs, keyframes, momentAt } from "./rhythm";

const MIN_SCALE = 0.58; // of the circle's full size

/** A larger difference to the clock, in ms, is set instead of caught up with: the clock was not known before. */
const MAX_DRIFT = 500;

export class Breath {
  readonly #circle = element("circle");
  readonly #ring = element("lights");
  readonly #text = element("breath-text");
  readonly #count = element("breath-count");
  readonly #progress = document.querySelector<SVGCircleElement>("#progress circle")!;
  readonly #reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  readonly #now: () => number;
  #rhythm: Rhythm;
  #begun = false;
  #animations: Animation[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `now` is the clock, in ms. */
  constructor(rhythm: Rhythm, now: () => number) {
    this.#rhythm = rhythm;
    this.#now = now;
    this.#reducedMotion.addEventListener("change", () => this.#start());
    document.addEventListener("visibilitychange", () => this.#start());
  }

  /** Starts to breathe, once. */
  begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    this.#start();
  }

  /** Changes the rhythm. */
  setRhythm(rhythm: Rhythm): void {
    this.#rhythm = rhythm;
    this.#start();
  }

  #start(): void {
    for (const animation of this.#animations) animation.cancel();
    this.#animations = [];
    clearTimeout(this.#timer);
    if (document.hidden || !this.#begun) return;
    if (!this.#reducedMotion.matches) {
      this.#animate(this.#circle, (fullness) => MIN_SCALE + (1 - MIN_SCALE) * fullness);
      this.#animate(this.#ring, (fullness) => 0.95 + 0.05 * fullness);
    }
    this.#tick();
  }

  #animate(target: HTMLElement, scale: (fullness: number) => number): void {
    const duration = cycleMs(this.#rhythm);
    const animation = target.animate(keyframes(this.#rhythm, scale), { duration, iterations: Infinity });
    animation.currentTime = this.#now() % duration;
    this.#animations.push(animation);
  }

  #tick(): void {
    const now = this.#now();
    const { phase, left, progress } = momentAt(this.#rhythm, now);
    setText(this.#text, phase.label);
    setText(this.#count, String(left));
    this.#progress.style.strokeDashoffset = String(1 - progress);
    // Animations have the time of the last frame.
    const sinceFrame = performance.now() - Number(document.timeline.currentTime);
    for (const animation of this.#animations) this.#follow(animation, now - sinceFrame);
    this.#timer = setTimeout(() => this.#tick(), 1000 - (now % 1000));
  }

  /** Corrects the animation's difference to the clock over the next second. `time` is the clock at the last frame. */
  #follow(animation: Animation, time: number): void {
    const duration = cycleMs(this.#rhythm);
    const drift = driftOf(Number(animation.currentTime ?? 0), time, duration);
    if (Math.abs(drift) > MAX_DRIFT) animation.currentTime = time % duration;
    else animation.updatePlaybackRate(1 + drift / 1000);
  }
}

/** Returns by how much an animation is behind the clock, by the shorter way around the cycle. Negative: ahead. */
export function driftOf(animation: number, clock: number, cycle: number): number {
  const behind = (((clock - animation) % cycle) + cycle) % cycle;
  return behind > cycle / 2 ? behind - cycle : behind;
}
