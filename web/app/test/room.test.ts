import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { moodColour } from "../src/moods";
import { Announcer } from "../src/room/announcer";
import { MAX_LIGHTS, lightsOf } from "../src/room/lights";
import { RHYTHMS, cycleMs, keyframes, momentAt, rhythmOf } from "../src/room/rhythm";
import { presentText, roomSentence, stateText } from "../src/room/texts";

describe("a rhythm", () => {
  const labels = (id: string): string[] => {
    const rhythm = rhythmOf(id);
    const seconds = Array.from({ length: cycleMs(rhythm) / 1000 }, (_, second) => second);
    return seconds.map((second) => {
      const { phase, left } = momentAt(rhythm, 1_000 * cycleMs(rhythm) + second * 1000 + 500);
      return `${phase.label} ${left}`;
    });
  };

  test("4-7-8 counts each phase down", () => {
    const all = labels("4-7-8");
    expect(all).toHaveLength(19);
    expect(all.slice(0, 5)).toEqual(["breathe in 4", "breathe in 3", "breathe in 2", "breathe in 1", "hold 7"]);
    expect(all.slice(10, 12)).toEqual(["hold 1", "breathe out 8"]);
    expect(all.at(-1)).toBe("breathe out 1");
  });

  test("box breathing holds after exhaling too", () => {
    expect(labels("box").filter((_, second) => second % 4 === 0)).toEqual([
      "breathe in 4",
      "hold 4",
      "breathe out 4",
      "hold 4",
    ]);
  });

  test("defaults to the first one", () => {
    expect(rhythmOf(null).id).toBe("4-7-8");
    expect(rhythmOf("fast").id).toBe("4-7-8");
  });

  test("has keyframes that loop", () => {
    for (const rhythm of RHYTHMS) {
      const frames = keyframes(rhythm, (fullness) => fullness);
      expect(frames[0]?.transform).toBe(frames.at(-1)?.transform);
      expect(frames.map((frame) => frame.offset).at(-1)).toBe(1);
      expect(frames).toHaveLength(rhythm.phases.length + 1);
    }
  });
});

describe("the lights", () => {
  const countByMood = (lights: (string | null)[]): Record<string, number> =>
    lights.reduce<Record<string, number>>((all, mood) => ({ ...all, [String(mood)]: (all[String(mood)] ?? 0) + 1 }), {});

  test("are one per visitor, by mood", () => {
    expect(lightsOf(0, {})).toEqual([]);
    expect(lightsOf(3, { joy: 1, calm: 1 })).toEqual(["joy", "calm", null]);
  });

  test("are proportional to moods above the maximum", () => {
    const lights = lightsOf(1000, { calm: 500, joy: 250 });
    expect(countByMood(lights)).toEqual({ calm: MAX_LIGHTS / 2, joy: MAX_LIGHTS / 4, null: MAX_LIGHTS / 4 });
  });

  test("never exceed the maximum", () => {
    for (let people = 0; people < 300; people++) {
      const moods = { calm: people >> 1, joy: people >> 2, sad: people >> 3 };
      expect(lightsOf(people, moods)).toHaveLength(Math.min(people, MAX_LIGHTS));
    }
  });

  test("have a stable colour for every mood, known or not", () => {
    expect(moodColour("calm")).toBe("var(--mood-calm)");
    expect(moodColour(null)).toBe("var(--mood-none)");
    expect(moodColour("stormy")).toMatch(/^var\(--mood-[a-z]+\)$/);
    expect(moodColour("stormy")).toBe(moodColour("stormy"));
  });
});

describe("texts", () => {
  test("show one person, many, and their moods", () => {
    expect(presentText(1)).toBe("only you, for now");
    expect(presentText(2)).toBe("people breathing together");
    expect(roomSentence(1, {})).toBe("You are the only one here.");
    expect(roomSentence(4, { joy: 1, calm: 2 })).toBe("4 people breathe here: 2 calm, 1 joy.");
  });

  test("show the connection state, and one text during a reconnect", () => {
    expect(stateText("connecting", true, false)).toBe("Joining…");
    expect(stateText("open", true, true)).toBe("You are here.");
    const lost = stateText("waiting", true, true);
    expect(lost).toContain("Reconnecting");
    expect(stateText("connecting", true, true)).toBe(lost);
    expect(stateText("waiting", false, true)).toContain("offline");
    expect(stateText("closed", false, true)).toContain("Reload");
  });
});

describe("the announcer", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test("announces at once, then at most every 5 s, newest only", () => {
    const announced: string[] = [];
    const announcer = new Announcer((text) => announced.push(text));
    announcer.announce("one");
    announcer.announce("two");
    announcer.announce("three");
    expect(announced).toEqual(["one"]);
    vi.advanceTimersByTime(4_999);
    expect(announced).toEqual(["one"]);
    vi.advanceTimersByTime(1);
    expect(announced).toEqual(["one", "three"]);
    vi.advanceTimersByTime(60_000);
    announcer.announce("four");
    expect(announced).toEqual(["one", "three", "four"]);
  });
});
