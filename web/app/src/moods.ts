// How moods look and in which order they stand. The hub's operator may name others than these.

const KNOWN = ["calm", "gratitude", "presence", "joy", "love", "peace", "hope", "tired", "anxious", "sad"];

/** The name of the colour of a mood; an unknown mood always gets the same one of the known. */
export function moodVariable(mood: string | null): string {
  if (mood === null) return "--mood-none";
  if (KNOWN.includes(mood)) return `--mood-${mood}`;
  let sum = 0;
  for (const letter of mood) sum = (sum * 31 + letter.charCodeAt(0)) >>> 0;
  return `--mood-${KNOWN[sum % KNOWN.length]}`;
}

/** The colour of a mood, for CSS. */
export function moodColour(mood: string | null): string {
  return `var(${moodVariable(mood)})`;
}

/** Moods with their counts, the most frequent first. */
export function byCount(moods: Record<string, number>): [string, number][] {
  return Object.entries(moods)
    .filter(([, count]) => count > 0)
    .sort(([a, m], [b, n]) => n - m || a.localeCompare(b));
}
