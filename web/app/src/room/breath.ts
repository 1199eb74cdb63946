// The breathing circle: a browser animation, and a text that changes once a second.

import { element, setText } from "../dom";
import { type Rhythm, cycleMs, keyframes, momentAt } from "./rhythm";

const MIN_SCALE = 0.58; // of the circle's full size

export class Breath {
  readonly #circle = element("circle");
  readonly #ring = element("lights");
  readonly #text = element("breath-text");
  readonly #count = element("breath-count");
  readonly #progress = document.querySelector<SVGCircleElement>("#progress circle")!;
  readonly #reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  #rhythm: Rhythm;
  #animations: Animation[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(rhythm: Rhythm) {
    this.#rhythm = rhythm;
    this.#reducedMotion.addEventListener("change", () => this.#start());
    document.addEventListener("visibilitychange", () => this.#start());
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
    if (document.hidden) return;
    if (!this.#reducedMotion.matches) {
      this.#animate(this.#circle, (fullness) => MIN_SCALE + (1 - MIN_SCALE) * fullness);
      this.#animate(this.#ring, (fullness) => 0.95 + 0.05 * fullness);
    }
    this.#tick();
  }

  #animate(target: HTMLElement, scale: (fullness: number) => number): void {
    const duration = cycleMs(this.#rhythm);
    const animation = target.animate(keyframes(this.#rhythm, scale), { duration, iterations: Infinity });
    animation.currentTime = Date.now() % duration;
    this.#animations.push(animation);
  }

  #tick(): void {
    const now = Date.now();
    const { phase, left, progress } = momentAt(this.#rhythm, now);
    setText(this.#text, phase.label);
    setText(this.#count, String(left));
    this.#progress.style.strokeDashoffset = String(1 - progress);
    this.#timer = setTimeout(() => this.#tick(), 1000 - (now % 1000));
  }
}
