// The mood picker: radio buttons with the number of visitors in each mood.

import { h } from "../dom";
import { moodColour } from "../moods";

/** The value of the button for no mood. */
const NONE = "";

export class MoodPicker {
  readonly #container: HTMLElement;
  #vocabulary: readonly string[] = [];
  readonly #counts = new Map<string, HTMLElement>();

  /** Calls `onChange` when the visitor picks a mood, or null for none. */
  constructor(container: HTMLElement, onChange: (mood: string | null) => void) {
    this.#container = container;
    container.addEventListener("change", (event) => {
      const { value } = event.target as HTMLInputElement;
      onChange(value === NONE ? null : value);
    });
  }

  /** Sets the moods and the checked one. Unchanged moods are not rendered again, so that the focus stays. */
  setVocabulary(vocabulary: readonly string[], mood: string | null): void {
    if (vocabulary.length > 0 && vocabulary.join() !== this.#vocabulary.join()) {
      this.#vocabulary = vocabulary;
      this.#counts.clear();
      this.#container.replaceChildren(...[...vocabulary, NONE].map((name) => this.#chip(name)));
    }
    for (const input of this.#container.querySelectorAll("input")) input.checked = input.value === (mood ?? NONE);
  }

  /** Shows the number of visitors in each mood; zero is not shown. */
  setCounts(moods: Record<string, number>): void {
    for (const [mood, target] of this.#counts) {
      const count = moods[mood] ?? 0;
      target.replaceChildren(...(count > 0 ? [String(count), h("span", { class: "visually-hidden" }, " here")] : []));
    }
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
