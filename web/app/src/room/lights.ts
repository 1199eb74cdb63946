// The lights around the circle: one per visitor, in the colour of the mood.

import { moodColour } from "../moods";

/** Maximum lights; more would touch each other. Above it, a light stands for several visitors. */
export const MAX_LIGHTS = 40;

/** Returns the mood of each light. With more visitors than lights, moods are proportional. */
export function lightsOf(present: number, moods: Record<string, number>): (string | null)[] {
  const withMood: [string | null, number][] = Object.entries(moods);
  const withoutMood = present - withMood.reduce((sum, [, count]) => sum + count, 0);
  const groups = [...withMood, [null, Math.max(0, withoutMood)] as [null, number]];
  const total = groups.reduce((sum, [, count]) => sum + count, 0);
  const lights = Math.min(total, MAX_LIGHTS);
  const result: (string | null)[] = [];
  let sum = 0;
  for (const [mood, count] of groups) {
    sum += count;
    while (result.length < Math.round((sum / total) * lights)) result.push(mood);
  }
  return result;
}

/** Renders one light for each entry, evenly spaced around `ring`. CSS animates changes. */
export function showLights(ring: HTMLElement, moods: (string | null)[]): void {
  while (ring.children.length > moods.length) ring.lastElementChild?.remove();
  moods.forEach((mood, index) => {
    let light = ring.children[index] as HTMLElement | undefined;
    if (!light) {
      light = document.createElement("span");
      light.className = "light";
      ring.append(light);
    }
    light.style.setProperty("--turn", `${(index / moods.length).toFixed(4)}turn`);
    light.style.setProperty("--colour", moodColour(mood));
  });
}
