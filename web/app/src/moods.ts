// Colours and order of moods. A hub may be configured with other moods than these.

const KNOWN = ["calm", "gratitude", "presence", "joy", "love", "peace", "hope", "tired", "anxious", "sad"];

/** Returns the CSS variable of a mood's colour. An unknown mood gets a known colour by its hash. */
export function moodVariable(mood: string | null): string {
  if (mood === null) return "--mood-none";
  if (KNOWN.includes(mood)) return `--mood-${mood}`;
  let hash = 0;
  for (const char of mood) hash = (hash * 31 + char.charCodeAt(0)) >>> 0;
  return `--mood-${KNOWN[hash % KNOWN.length]}`;
}

/** Returns the CSS colour of a mood. */
export function moodColour(mood: string | null): string {
  return `var(${moodVariable(mood)})`;
}

/** Returns moods with their counts, the most frequent first, then by name. */
export function byCount(moods: Record<string, number>): [string, number][] {
  return Object.entries(moods)
    .filter(([, count]) => count > 0)
    .sort(([a, m], [b, n]) => n - m || a.localeCompare(b));
}
