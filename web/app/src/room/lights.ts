// The people in the room as lights around the circle, in the colours of their moods.

import { moodColour } from "../moods";

/** More lights than this would be a ring without gaps. Beyond it, each stands for several people. */
export const MOST_LIGHTS = 40;

/** The mood of each light. Where there are more people than lights, moods get fair shares. */
export function lightsOf(present: number, moods: Record<string, number>): (string | null)[] {
  const named: [string | null, number][] = Object.entries(moods);
  const without = present - named.reduce((sum, [, count]) => sum + count, 0);
  const groups = [...named, [null, Math.max(0, without)] as [null, number]];
  const total = groups.reduce((sum, [, count]) => sum + count, 0);
  const lights = Math.min(total, MOST_LIGHTS);
  const lit: (string | null)[] = [];
  let people = 0;
  for (const [mood, count] of groups) {
    people += count;
    while (lit.length < Math.round((people / total) * lights)) lit.push(mood);
  }
  return lit;
}

/** Shows one light for each mood of the list, evenly around `ring`. They move and fade in CSS. */
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
