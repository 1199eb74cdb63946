// Rhythms of breathing: what to do at which moment. Pure: time goes in, words come out.

export interface Phase {
  words: "breathe in" | "hold" | "breathe out";
  seconds: number;
  /** How full the lungs are at its end, from 0 to 1. */
  fullness: number;
}

export interface Rhythm {
  id: string;
  /** For whoever does not see the circle. */
  description: string;
  phases: Phase[];
}

const inhale = (seconds: number): Phase => ({ words: "breathe in", seconds, fullness: 1 });
const exhale = (seconds: number): Phase => ({ words: "breathe out", seconds, fullness: 0 });
const hold = (seconds: number, fullness: number): Phase => ({ words: "hold", seconds, fullness });

export const RHYTHMS: Rhythm[] = [
  {
    id: "4-7-8",
    description: "Breathe in for 4 seconds, hold for 7, breathe out for 8.",
    phases: [inhale(4), hold(7, 1), exhale(8)],
  },
  {
    id: "box",
    description: "Breathe in for 4 seconds, hold for 4, breathe out for 4, hold for 4.",
    phases: [inhale(4), hold(4, 1), exhale(4), hold(4, 0)],
  },
];

/** The rhythm of this id, or the first. */
export function rhythmOf(id: string | null): Rhythm {
  return RHYTHMS.find((rhythm) => rhythm.id === id) ?? RHYTHMS[0]!;
}

/** How long one breath takes, in milliseconds. */
export function cycleMs(rhythm: Rhythm): number {
  return rhythm.phases.reduce((sum, phase) => sum + phase.seconds, 0) * 1000;
}

export interface Moment {
  phase: Phase;
  /** Seconds that are left of the phase, counted down from its length to 1. */
  left: number;
  /** The part of the phase that is over at the start of this second. */
  progress: number;
}

/**
 * Where in the breath everybody is at this time. It goes by the wall clock, so that all who chose
 * a rhythm breathe in at the same moment, without a word between them.
 */
export function momentAt(rhythm: Rhythm, time: number): Moment {
  let second = Math.floor((time % cycleMs(rhythm)) / 1000);
  for (const phase of rhythm.phases) {
    if (second < phase.seconds) {
      return { phase, left: phase.seconds - second, progress: second / phase.seconds };
    }
    second -= phase.seconds;
  }
  throw new RangeError(`no such time: ${time}`);
}

/** The steps of an animation of one breath: `scale` makes a size of a fullness. */
export function keyframes(rhythm: Rhythm, scale: (fullness: number) => number): Keyframe[] {
  const total = cycleMs(rhythm) / 1000;
  const last = rhythm.phases.at(-1)!;
  let seconds = 0;
  const frames: Keyframe[] = [{ offset: 0, transform: `scale(${scale(last.fullness)})`, easing: "ease-in-out" }];
  for (const phase of rhythm.phases) {
    seconds += phase.seconds;
    frames.push({ offset: seconds / total, transform: `scale(${scale(phase.fullness)})`, easing: "ease-in-out" });
  }
  return frames;
}
