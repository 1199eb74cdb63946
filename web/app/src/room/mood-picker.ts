// The mood picker: radio buttons with the number of visitors in each mood.
//
// Arrow keys check each radio button on their way. A mood that they reach is chosen when it rests for a second, or by
// Enter or space; a click chooses at once.

import { h } from "../dom";
import { moodColour } from "../moods";

/** The value of the button for no mood. */
const NONE = "";

/** How long a mood that the arrow keys reached rests until it is chosen, in ms. */
export const REST = 1_000;

export class MoodPicker {
  readonly #container: HTMLElement;
  readonly #onChange: (mood: string | null) => void;
  #vocabulary: readonly string[] = [];
  readonly #counts = new Map<string, HTMLElement>();
  #byArrow = false;
  /** The mood that rests, by its value. */
  #resting: { value: string; timer: ReturnType<typeof setTimeout> } | undefined;

  /** Calls `onChange` when the visitor chooses a mood, or null for none. */
  constructor(container: HTMLElement, onChange: (mood: string | null) => void) {
    this.#container = container;
    this.#onChange = onChange;
    container.addEventListener("keydown", (event) => this.#onKey(event));
    container.addEventListener("keyup", () => (this.#byArrow = false));
    container.addEventListener("change", (event) => {
      const { value } = event.target as HTMLInputElement;
      this.#cancel();
      if (!this.#byArrow) return this.#choose(value);
      this.#resting = { value, timer: setTimeout(() => this.#chooseResting(), REST) };
    });
  }

  /** Sets the moods and the checked one. Unchanged moods are not rendered again, so that the focus stays. */
  setVocabulary(vocabulary: readonly string[], mood: string | null): void {
    if (vocabulary.length > 0 && vocabulary.join() !== this.#vocabulary.join()) {
      this.#vocabulary = vocabulary;
      this.#counts.clear();
      this.#cancel();
      this.#container.replaceChildren(...[...vocabulary, NONE].map((name) => this.#chip(name)));
    }
    const checked = this.#resting?.value ?? mood ?? NONE;
    for (const input of this.#container.querySelectorAll("input")) input.checked = input.value === checked;
  }

  /** Shows the number of visitors in each mood; zero is not shown. */
  setCounts(moods: Readonly<Record<string, number>>): void {
    for (const [mood, target] of this.#counts) {
      const count = moods[mood] ?? 0;
      target.replaceChildren(...(count > 0 ? [String(count), h("span", { class: "visually-hidden" }, " here")] : []));
    }
  }

  #onKey({ key }: KeyboardEvent): void {
    this.#byArrow = key.startsWith("Arrow");
    if (key === "Enter" || key === " ") this.#chooseResting();
  }

  #chooseResting(): void {
    const resting = this.#resting;
    this.#cancel();
    if (resting) this.#choose(resting.value);
  }

  #cancel(): void {
    clearTimeout(this.#resting?.timer);
    this.#resting = undefined;
  }

  #choose(value: string): void {
    this.#onChange(value === NONE ? null : value);
  }

  #chip(mood: string): HTMLElement {
    const label = h("span");
    if (mood === NONE) {
      label.append("rather not say");
    } else {
      label.style.setProperty("--colour", moodColour(mood));
      const count = h("span", { class: "count numbers" });
      this.#counts.set(mood, count);
      label.append(h("span", { class: "dot" }), mood, " ", count);
    }
    return h("label", { class: "chip" }, h("input", { type: "radio", name: "mood", value: mood }), label);
  }
}
