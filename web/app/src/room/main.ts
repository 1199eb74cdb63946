// The room page: joins the room in the URL and shows its state.

import { joinRoom } from "@breathing-room/client";
import { element, h, setText } from "../dom";
import { load, save } from "../storage";
import { Announcer } from "./announcer";
import { Breath } from "./breath";
import { lightsOf, showLights } from "./lights";
import { MoodPicker } from "./mood-picker";
import { RHYTHMS, type Rhythm, rhythmOf } from "./rhythm";
import { presentText, roomSentence, stateText } from "./texts";

const RHYTHM_KEY = "breathing-room:rhythm";

const name = location.pathname.split("/")[2] ?? "lobby";
const MOOD_KEY = `breathing-room:mood:${name}`;
setText(element("room"), name);
document.title = `${name} – breathing room`;

// The breathing rhythm works without a connection.

const initial = rhythmOf(load("localStorage", RHYTHM_KEY));
const breath = new Breath(initial);
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

function describe(rhythm: Rhythm): void {
  setText(element("rhythm-description"), rhythm.description);
}

// The room. A reload keeps the mood; a new tab starts without one.

const room = joinRoom({ room: name, mood: load("sessionStorage", MOOD_KEY) });
let wasOpen = false;
const announcer = new Announcer((text) => setText(element("announcer"), text));
const picker = new MoodPicker(element("picker"), (choice) => {
  save("sessionStorage", MOOD_KEY, choice);
  room.setMood(choice);
});

function show(): void {
  const open = room.state === "open";
  wasOpen ||= open;
  // Without a connection the last counts may be wrong.
  const present = open ? room.present : 0;
  const moods = open ? room.moods : {};
  setText(element("present"), open ? String(present) : "–");
  setText(element("people"), open ? presentText(present) : "\u00a0");
  showLights(element("lights"), lightsOf(present, moods));
  picker.setVocabulary(room.vocabulary, room.mood);
  picker.setCounts(moods);
  const text = stateText(room.state, navigator.onLine, wasOpen);
  setText(element("state-text"), text);
  element("indicator").className = `indicator ${room.state}`;
  announcer.announce(open ? `${text} ${roomSentence(present, moods)}` : text);
}

room.addEventListener("state", show);
room.addEventListener("presence", show);
addEventListener("online", show);
addEventListener("offline", show);
room.pageView(undefined, { title: document.title });
show();
