// The circle that people follow: the browser moves it, once a second the words change.

import { element, setText } from "../dom";
import { type Rhythm, cycleMs, keyframes, momentAt } from "./rhythm";

const SMALLEST = 0.58; // of the circle's full size

export class Breath {
  readonly #circle = element("circle");
  readonly #ring = element("lights");
  readonly #words = element("breath-words");
  readonly #count = element("breath-count");
  readonly #progress = document.querySelector<SVGCircleElement>("#progress circle")!;
  readonly #still = matchMedia("(prefers-reduced-motion: reduce)");
  #rhythm: Rhythm;
  #moving: Animation[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(rhythm: Rhythm) {
    this.#rhythm = rhythm;
    this.#still.addEventListener("change", () => this.#start());
    document.addEventListener("visibilitychange", () => this.#start());
    this.#start();
  }

  /** Breathes in this rhythm from now on. */
  follow(rhythm: Rhythm): void {
    this.#rhythm = rhythm;
    this.#start();
  }

  #start(): void {
    for (const animation of this.#moving) animation.cancel();
    this.#moving = [];
    clearTimeout(this.#timer);
    if (document.hidden) return;
    if (!this.#still.matches) {
      this.#move(this.#circle, (fullness) => SMALLEST + (1 - SMALLEST) * fullness);
      this.#move(this.#ring, (fullness) => 0.95 + 0.05 * fullness);
    }
    this.#tick();
  }

  #move(target: HTMLElement, scale: (fullness: number) => number): void {
    const duration = cycleMs(this.#rhythm);
    const animation = target.animate(keyframes(this.#rhythm, scale), { duration, iterations: Infinity });
    animation.currentTime = Date.now() % duration;
    this.#moving.push(animation);
  }

  #tick(): void {
    const now = Date.now();
    const { phase, left, progress } = momentAt(this.#rhythm, now);
    setText(this.#words, phase.words);
    setText(this.#count, String(left));
    this.#progress.style.strokeDashoffset = String(1 - progress);
    this.#timer = setTimeout(() => this.#tick(), 1000 - (now % 1000));
  }
}
