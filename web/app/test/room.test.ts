import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { moodColour } from "../src/moods";
import { Announcer } from "../src/room/announcer";
import { MOST_LIGHTS, lightsOf } from "../src/room/lights";
import { RHYTHMS, cycleMs, keyframes, momentAt, rhythmOf } from "../src/room/rhythm";
import { presentWords, roomSentence, stateWords } from "../src/room/words";

describe("a rhythm", () => {
  const told = (id: string): string[] => {
    const rhythm = rhythmOf(id);
    const seconds = Array.from({ length: cycleMs(rhythm) / 1000 }, (_, second) => second);
    return seconds.map((second) => {
      const { phase, left } = momentAt(rhythm, 1_000 * cycleMs(rhythm) + second * 1000 + 500);
      return `${phase.words} ${left}`;
    });
  };

  test("4-7-8 counts each phase down", () => {
    const all = told("4-7-8");
    expect(all).toHaveLength(19);
    expect(all.slice(0, 5)).toEqual(["breathe in 4", "breathe in 3", "breathe in 2", "breathe in 1", "hold 7"]);
    expect(all.slice(10, 12)).toEqual(["hold 1", "breathe out 8"]);
    expect(all.at(-1)).toBe("breathe out 1");
  });

  test("box breathing holds the empty breath too", () => {
    expect(told("box").filter((_, second) => second % 4 === 0)).toEqual([
      "breathe in 4",
      "hold 4",
      "breathe out 4",
      "hold 4",
    ]);
  });

  test("is the first one where it is not known", () => {
    expect(rhythmOf(null).id).toBe("4-7-8");
    expect(rhythmOf("fast").id).toBe("4-7-8");
  });

  test("ends its animation as it begins, so that breath follows breath", () => {
    for (const rhythm of RHYTHMS) {
      const frames = keyframes(rhythm, (fullness) => fullness);
      expect(frames[0]?.transform).toBe(frames.at(-1)?.transform);
      expect(frames.map((frame) => frame.offset).at(-1)).toBe(1);
      expect(frames).toHaveLength(rhythm.phases.length + 1);
    }
  });
});

describe("the lights", () => {
  const tally = (lights: (string | null)[]): Record<string, number> =>
    lights.reduce<Record<string, number>>((all, mood) => ({ ...all, [String(mood)]: (all[String(mood)] ?? 0) + 1 }), {});

  test("are as many as there are people, in the colours of their moods", () => {
    expect(lightsOf(0, {})).toEqual([]);
    expect(lightsOf(3, { joy: 1, calm: 1 })).toEqual(["joy", "calm", null]);
  });

  test("share a full ring fairly", () => {
    const lights = lightsOf(1000, { calm: 500, joy: 250 });
    expect(tally(lights)).toEqual({ calm: MOST_LIGHTS / 2, joy: MOST_LIGHTS / 4, null: MOST_LIGHTS / 4 });
  });

  test("never take more room than there is", () => {
    for (let people = 0; people < 300; people++) {
      const moods = { calm: people >> 1, joy: people >> 2, sad: people >> 3 };
      expect(lightsOf(people, moods)).toHaveLength(Math.min(people, MOST_LIGHTS));
    }
  });

  test("have a colour for every mood, also for those of other hubs", () => {
    expect(moodColour("calm")).toBe("var(--mood-calm)");
    expect(moodColour(null)).toBe("var(--mood-none)");
    expect(moodColour("stormy")).toMatch(/^var\(--mood-[a-z]+\)$/);
    expect(moodColour("stormy")).toBe(moodColour("stormy"));
  });
});

describe("the words", () => {
  test("name one person, many, and their moods", () => {
    expect(presentWords(1)).toBe("only you, for now");
    expect(presentWords(2)).toBe("people breathing together");
    expect(roomSentence(1, {})).toBe("You are the only one here.");
    expect(roomSentence(4, { joy: 1, calm: 2 })).toBe("4 people breathe here: 2 calm, 1 joy.");
  });

  test("say how the connection is, and do not flicker while it is tried again", () => {
    expect(stateWords("connecting", true, false)).toBe("Coming in…");
    expect(stateWords("open", true, true)).toBe("You are here.");
    const lost = stateWords("waiting", true, true);
    expect(lost).toContain("Coming back");
    expect(stateWords("connecting", true, true)).toBe(lost);
    expect(stateWords("waiting", false, true)).toContain("offline");
    expect(stateWords("closed", false, true)).toContain("Reload");
  });
});

describe("the announcer", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test("speaks at once, then at most every five seconds, and only the newest", () => {
    const heard: string[] = [];
    const announcer = new Announcer((text) => heard.push(text));
    announcer.say("one");
    announcer.say("two");
    announcer.say("three");
    expect(heard).toEqual(["one"]);
    vi.advanceTimersByTime(4_999);
    expect(heard).toEqual(["one"]);
    vi.advanceTimersByTime(1);
    expect(heard).toEqual(["one", "three"]);
    vi.advanceTimersByTime(60_000);
    announcer.say("four");
    expect(heard).toEqual(["one", "three", "four"]);
  });
});
