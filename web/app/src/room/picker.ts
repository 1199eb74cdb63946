// The moods to choose from: a group of radio buttons that also says how many people are in each mood.

import { h } from "../dom";
import { moodColour } from "../moods";

/** No mood is a choice too. */
const NONE = "";

export class Picker {
  readonly #place: HTMLElement;
  #vocabulary: readonly string[] = [];
  readonly #counts = new Map<string, HTMLElement>();

  /** `choose` is called when somebody picks a mood, or none. */
  constructor(place: HTMLElement, choose: (mood: string | null) => void) {
    this.#place = place;
    place.addEventListener("change", (event) => {
      const { value } = event.target as HTMLInputElement;
      choose(value === NONE ? null : value);
    });
  }

  /** Offers these moods. The same ones again change nothing, so that the focus stays where it is. */
  offer(vocabulary: readonly string[], mood: string | null): void {
    if (vocabulary.length > 0 && vocabulary.join() !== this.#vocabulary.join()) {
      this.#vocabulary = vocabulary;
      this.#counts.clear();
      this.#place.replaceChildren(...[...vocabulary, NONE].map((name) => this.#chip(name)));
    }
    for (const input of this.#place.querySelectorAll("input")) input.checked = input.value === (mood ?? NONE);
  }

  /** Shows how many people are in which mood; without moods, no numbers. */
  count(moods: Record<string, number>): void {
    for (const [mood, place] of this.#counts) {
      const count = moods[mood] ?? 0;
      place.replaceChildren(...(count > 0 ? [String(count), h("span", { class: "heard" }, " here")] : []));
    }
  }

  #chip(mood: string): HTMLElement {
    const face = h("span");
    if (mood === NONE) {
      face.append("rather not say");
    } else {
      face.style.setProperty("--colour", moodColour(mood));
      const count = h("span", { class: "count numbers" });
      this.#counts.set(mood, count);
      face.append(h("span", { class: "dot" }), mood, " ", count);
    }
    return h("label", { class: "chip" }, h("input", { type: "radio", name: "mood", value: mood }), face);
  }
}
