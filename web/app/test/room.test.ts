import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { moodColour } from "../src/moods";
import { Announcer } from "../src/room/announcer";
import { driftOf } from "../src/room/breath";
import { MAX_LIGHTS, lightsOf } from "../src/room/lights";
import { tokenOf } from "../src/room/link-token";
import { RHYTHMS, cycleMs, keyframes, momentAt, rhythmOf } from "../src/room/rhythm";
import { type Connection, lockText, presentText, refusalText, remainingText, roomSentence, type Sitting, stateText } from "../src/room/texts";

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

  const text = (part: Partial<Connection>): string => stateText({ state: "waiting", online: true, wasOpen: true, ...part });

  test("show the connection state, and one text during a reconnect", () => {
    expect(text({ state: "connecting", wasOpen: false })).toBe("Joining…");
    expect(text({ state: "open" })).toBe("You are here.");
    const lost = text({});
    expect(lost).toContain("Reconnecting");
    expect(text({ state: "connecting" })).toBe(lost);
    expect(text({ online: false })).toContain("offline");
    expect(text({ state: "closed", online: false })).toContain("Reload");
  });

  test("show the age of counts while the connection is checked", () => {
    expect(text({ state: "checking", age: 63_400 })).toBe("Checking the connection. These numbers are 63 seconds old.");
    expect(text({ state: "checking", age: 180_000 })).toContain("3 minutes old");
  });

  test("show why the hub refused, and who can help", () => {
    expect(text({ state: "closed", refusal: "unauthorized" })).toContain("personal link");
    expect(text({ state: "closed", refusal: "unauthorized", hasToken: true })).toContain("does not accept your link");
    expect(text({ state: "closed", refusal: "token-expired" })).toContain("has ended");
    expect(text({ state: "closed", refusal: "forbidden-origin" })).toContain("ALLOWED_ORIGINS");
    expect(text({ refusal: "full", state: "connecting", wasOpen: false })).toContain("The hub is full");
    expect(text({ refusal: "full", state: "open" })).toBe("You are here.");
  });

  test.each([
    ["unauthorized", "personal link"],
    ["token-expired", "Ask your host"],
    ["kicked", "removed you"],
    ["banned", "removed you"],
    ["forbidden-origin", "ALLOWED_ORIGINS"],
    ["bad-room", "no such room"],
    ["rate-limit", "Reload"],
    ["too-many-rooms", "too many rooms"],
    ["too-many", "people are here from your network"],
    ["too-fast", "attempts from your network"],
    ["full", "The hub is full"],
    ["restarting", "The hub restarts"],
    ["overloaded", "The hub is busy"],
    ["internal", "The hub made a mistake"],
    ["bad-host", "proxy"],
    ["bad-parameter", "proxy"],
    ["bad-upgrade", "proxy"],
    ["bad-visitor", "proxy"],
    ["upgrade-required", "proxy"],
  ])("explain the refusal %s", (refusal, words) => {
    expect(text({ refusal, wasOpen: false })).toContain(words);
    expect(text({ refusal, state: "closed" })).toContain(words);
    expect(text({ refusal, state: "open" })).toBe("You are here.");
  });

  test.each(["bad-json", "unknown-type", "bad-field", "unknown-mood", "sit-refused", "outbox-full", "too-large", "connect"])(
    "explain no refusal of the room by %s",
    (code) => expect(refusalText(code, false)).toBeUndefined(),
  );

  test("show the remaining time of a sit in minutes, and what a locked phone does", () => {
    expect([600_005, 600_000, 541_001, 61_000, 1].map(remainingText)).toEqual([
      "Sitting, 10 minutes left",
      "Sitting, 10 minutes left",
      "Sitting, 10 minutes left",
      "Sitting, the last minute",
      "Sitting, the last minute",
    ]);
    const lock = (changes: Partial<Sitting>) =>
      lockText({ state: "open", sitting: true, confirmed: true, awake: false, bell: false, ...changes });
    expect(lock({ sitting: false, bell: true })).toContain("you stay in the room until the sit ends");
    expect(lock({ awake: true, bell: true })).toMatch(/^The screen stays on.*bell may be silent\.$/);
    expect(lock({})).not.toMatch(/screen stays|bell/);
    expect(lock({ state: "checking" })).toBe(lock({}));
  });

  test("promise a place during a sit only when the hub has confirmed it, connected or not", () => {
    const lock = (state: Sitting["state"], confirmed: boolean, sitting = true) =>
      lockText({ state, sitting, confirmed, awake: false, bell: true });
    for (const state of ["connecting", "open", "checking", "waiting", "closed"] as const) {
      expect(lock(state, false)).toContain("not held yet");
      expect(lock(state, true)).toMatch(/place is held/);
    }
    expect(lock("waiting", false)).toContain("Not connected");
    expect(lock("waiting", true)).toContain("Not connected");
    expect(lock("closed", false, false)).not.toContain("you stay");
  });
});

test("token is read from the fragment of a personal link", () => {
  expect(tokenOf("#token=a.b-c_d")).toBe("a.b-c_d");
  expect(["", "#", "#token=", "#other=1"].map(tokenOf)).toEqual([null, null, null, null]);
});

test("drift of the breath is the shorter way around the cycle", () => {
  expect(driftOf(1_000, 1_030, 19_000)).toBe(30);
  expect(driftOf(19_000 * 7 + 10, 19_000 * 3 - 10, 19_000)).toBe(-20);
  expect(driftOf(18_990, 19_000 * 3 + 15, 19_000)).toBe(25);
});

describe("the announcer", () => {
  let announced: string[];
  let announcer: Announcer;

  beforeEach(() => {
    vi.useFakeTimers();
    announced = [];
    announcer = new Announcer((text) => announced.push(text), true);
    announcer.own("You are here. 8 people.", 8);
  });
  afterEach(() => void vi.useRealTimers());

  test("announces own changes at once", () => {
    announcer.own("Your mood is calm.");
    announcer.own("Your mood is joy.");
    expect(announced.slice(1)).toEqual(["Your mood is calm.", "Your mood is joy."]);
  });

  test("announces large changes of the room, at most once a minute, newest only", () => {
    announcer.room(12, "12 people");
    announcer.room(11, "11 people");
    vi.advanceTimersByTime(59_999);
    expect(announced).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(announced.slice(1)).toEqual(["11 people"]);
    announcer.room(20, "20 people");
    vi.advanceTimersByTime(60_000);
    expect(announced.slice(2)).toEqual(["20 people"]);
  });

  test("announces no small changes until they add up", () => {
    vi.advanceTimersByTime(60_000);
    announcer.room(9, "9 people");
    vi.advanceTimersByTime(60_000);
    expect(announced).toHaveLength(1);
    announcer.room(10, "10 people");
    expect(announced.slice(1)).toEqual(["10 people"]);
  });

  test("announces only own changes while others are switched off", () => {
    announcer.setOthers(false);
    vi.advanceTimersByTime(60_000);
    announcer.room(80, "80 people");
    announcer.own("Your mood is calm.");
    expect(announced.slice(1)).toEqual(["Your mood is calm."]);
    announcer.setOthers(true);
    expect(announced.slice(2)).toEqual(["80 people"]);
  });
});
