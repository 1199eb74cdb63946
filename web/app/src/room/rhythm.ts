// Breathing rhythms. Pure functions of time.

export interface Phase {
  label: "breathe in" | "hold" | "breathe out";
  seconds: number;
  /** Fullness of the lungs at the end of the phase, from 0 to 1. */
  fullness: number;
}

export interface Rhythm {
  id: string;
  /** For screen readers. */
  description: string;
  phases: Phase[];
}

const inhale = (seconds: number): Phase => ({ label: "breathe in", seconds, fullness: 1 });
const exhale = (seconds: number): Phase => ({ label: "breathe out", seconds, fullness: 0 });
const hold = (seconds: number, fullness: number): Phase => ({ label: "hold", seconds, fullness });

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

/** Returns the rhythm with this id, or the first. */
export function rhythmOf(id: string | null): Rhythm {
  return RHYTHMS.find((rhythm) => rhythm.id === id) ?? RHYTHMS[0]!;
}

/** Returns the length of one breath in ms. */
export function cycleMs(rhythm: Rhythm): number {
  return rhythm.phases.reduce((sum, phase) => sum + phase.seconds, 0) * 1000;
}

export interface Moment {
  phase: Phase;
  /** Remaining seconds of the phase, counted down to 1. */
  left: number;
  /** Elapsed fraction of the phase at the start of this second. */
  progress: number;
}

/** Returns the moment of the breath. It depends on the wall clock only, so all visitors with one rhythm are in phase. */
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

/** Returns the keyframes of one breath. `scale` maps a fullness to a size. */
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
