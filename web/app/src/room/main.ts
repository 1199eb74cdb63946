// The room page: joins the room in the URL and shows its state.

import { type Room, joinRoom } from "@breathing-room/client";
import { element, h, setText } from "../dom";
import { load, save } from "../storage";
import { Announcer } from "./announcer";
import { Breath } from "./breath";
import { lightsOf, showLights } from "./lights";
import { takeToken } from "./link-token";
import { MoodPicker } from "./mood-picker";
import { RHYTHMS, type Rhythm, rhythmOf } from "./rhythm";
import { SitPanel } from "./sit-panel";
import { moodSentence, presentText, refusalText, roomSentence, stateText } from "./texts";

const RHYTHM_KEY = "breathing-room:rhythm";
const ANNOUNCE_KEY = "breathing-room:announce-others";

/** Without the hub's clock, breathing begins by the device's after this many ms. */
const CLOCK_PATIENCE = 3_000;

const name = location.pathname.split("/")[2] ?? "lobby";
const MOOD_KEY = `breathing-room:mood:${name}`;
setText(element("room"), name);
document.title = `${name} – breathing room`;

let token = takeToken(name);

// A reload keeps the mood; a new tab starts without one.
const room = join();
const breath = new Breath(startRhythm(), () => room?.hubNow() ?? Date.now());
setTimeout(() => breath.begin(), CLOCK_PATIENCE);
const announcer = startAnnouncer();
if (room) follow(room);

/** Joins the room. Shows why if its name is bad. */
function join(): Room | undefined {
  try {
    return joinRoom({ room: name, mood: load("sessionStorage", MOOD_KEY), token: token ?? undefined });
  } catch {
    setText(element("state-text"), refusalText("bad-room", false) ?? "");
    element("indicator").className = "indicator closed";
    return undefined;
  }
}

/** Renders the choice of rhythms. Returns the current one. */
function startRhythm(): Rhythm {
  const describe = (rhythm: Rhythm): void => setText(element("rhythm-description"), rhythm.description);
  const initial = rhythmOf(load("localStorage", RHYTHM_KEY));
  describe(initial);
  element("rhythms").append(
    ...RHYTHMS.map(({ id }) => {
      const input = h("input", { type: "radio", name: "rhythm", value: id });
      input.checked = id === initial.id;
      return h("label", {}, input, h("span", {}, id === "box" ? "Box" : id));
    }),
  );
  element("rhythms").addEventListener("change", (event) => {
    const rhythm = rhythmOf((event.target as HTMLInputElement).value);
    save("localStorage", RHYTHM_KEY, rhythm.id);
    breath.setRhythm(rhythm);
    describe(rhythm);
  });
  return initial;
}

/** Sets up the announcements, and the switch for those of other people. */
function startAnnouncer(): Announcer {
  const others = element<HTMLInputElement>("announce");
  others.checked = load("localStorage", ANNOUNCE_KEY) !== "off";
  const announcer = new Announcer((text) => setText(element("announcer"), text), others.checked);
  others.addEventListener("change", () => {
    save("localStorage", ANNOUNCE_KEY, others.checked ? null : "off");
    announcer.setOthers(others.checked);
  });
  return announcer;
}

/** Shows the room and each change of it. */
function follow(room: Room): void {
  let wasOpen = false;
  let refusal: string | undefined;
  let mood = room.mood;
  let announced = "";
  let age: ReturnType<typeof setInterval> | undefined;
  const picker = new MoodPicker(element("picker"), (choice) => {
    room.setMood(choice);
  });
  new SitPanel(room, (text) => announcer.own(text));

  function show(): void {
    const { state } = room;
    const known = state === "open" || state === "checking";
    const [present, moods] = known ? [room.present, room.moods] : [0, {}];
    if (state === "open") [wasOpen, refusal] = [true, undefined];
    setText(element("present"), known ? String(present) : "–");
    setText(element("people"), known ? presentText(present) : "\u00a0");
    showLights(element("lights"), lightsOf(present, moods));
    picker.setVocabulary(room.vocabulary, room.mood);
    picker.setCounts(moods);
    document.body.classList.toggle("stale", state === "checking");
    element("indicator").className = `indicator ${state}`;
    if (known) breath.begin();
    announce(showState(), present, moods);
  }

  /** Shows the connection in words. Returns them. */
  function showState(): string {
    const text = stateText({
      state: room.state,
      online: navigator.onLine,
      wasOpen,
      refusal,
      hasToken: token !== null,
      age: room.countsAge,
    });
    setText(element("state-text"), text);
    clearInterval(age);
    if (room.state === "checking") age = setInterval(showState, 1_000);
    return text;
  }

  function announce(text: string, present: number, moods: Readonly<Record<string, number>>): void {
    if (room.mood !== mood) {
      mood = room.mood;
      save("sessionStorage", MOOD_KEY, mood);
      announcer.own(moodSentence(mood));
    }
    // A check of the connection is mostly over before it is spoken.
    if (room.state === "checking") return;
    if (text === announced) return void (room.state === "open" && announcer.room(present, roomSentence(present, moods)));
    announced = text;
    if (room.state === "open") announcer.own(`${text} ${roomSentence(present, moods)}`, present);
    else announcer.own(text);
  }

  room.addEventListener("state", show);
  room.addEventListener("presence", show);
  room.addEventListener("error", ({ detail }) => {
    if (refusalText(detail.code, false) === undefined) return;
    refusal = detail.code;
    show();
  });
  // A link to the same room with another token changes only the fragment, which loads nothing.
  addEventListener("hashchange", () => {
    token = takeToken(name);
    if (token !== null) room.setToken(token);
  });
  addEventListener("online", show);
  addEventListener("offline", show);
  room.pageView(undefined, { title: document.title });
  show();
}
