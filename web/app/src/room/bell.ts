// A quiet bell at the end of a sit. It is scheduled ahead in the audio clock, because timers of hidden pages are late.

const PEAK = 0.12; // of full volume
const SECONDS = 7;

/** A bell that is later than this, in seconds, would startle. */
const LATE = 1;

/** Partials of a small bell: the frequency in Hz, and the part of the volume. */
const PARTIALS = [[523, 1], [1_443, 0.3], [2_825, 0.1]] as const;

export class Bell {
  #context: AudioContext | undefined;
  #remaining: (() => number) | undefined;
  /** The scheduled bell, and when it rings by the audio clock, in seconds. */
  #ringing: { out: GainNode; at: number } | undefined;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#schedule());
  }

  /** Schedules the bell. `remaining` returns the ms until then. A browser allows sound after a click only. */
  set(remaining: () => number): void {
    this.#remaining = remaining;
    if (!this.#context) {
      this.#context = new AudioContext();
      // While the context is suspended, such as on a locked phone, its clock stands still.
      this.#context.addEventListener("statechange", () => this.#schedule());
    }
    void this.#context.resume();
    this.#schedule();
  }

  /** Forgets the bell. `silent`: before it rings; otherwise it rings now, unless it would be late. */
  clear(silent: boolean): void {
    if (silent || this.#waits(LATE)) this.#ringing?.out.disconnect();
    this.#remaining = this.#ringing = undefined;
  }

  #schedule(): void {
    const [context, seconds] = [this.#context, (this.#remaining?.() ?? 0) / 1000];
    if (context?.state !== "running" || !this.#remaining) return;
    if (this.#waits(0)) this.#ringing?.out.disconnect();
    if (seconds <= 0) return;
    const at = context.currentTime + seconds;
    this.#ringing = { out: ring(context, at), at };
  }

  /** Whether the scheduled bell rings later than in this many seconds. */
  #waits(seconds: number): boolean {
    return (this.#ringing?.at ?? 0) > (this.#context?.currentTime ?? 0) + seconds;
  }
}

/** Rings the bell at this time of the audio clock, in seconds. */
function ring(context: AudioContext, at: number): GainNode {
  const out = new GainNode(context, { gain: PEAK });
  out.connect(context.destination);
  for (const [frequency, part] of PARTIALS) {
    const tone = new OscillatorNode(context, { frequency });
    const volume = new GainNode(context, { gain: 0 });
    volume.gain.setValueAtTime(0, at);
    volume.gain.linearRampToValueAtTime(part, at + 0.02);
    // Higher partials fade faster.
    volume.gain.exponentialRampToValueAtTime(0.001, at + SECONDS * Math.sqrt(part));
    tone.connect(volume).connect(out);
    tone.start(at);
    tone.stop(at + SECONDS);
  }
  return out;
}
