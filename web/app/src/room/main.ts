// The room page: joins the room that its address names, and shows who breathes there.

import { joinRoom } from "@breathing-room/client";
import { element, h, setText } from "../dom";
import { keep, kept } from "../kept";
import { Announcer } from "./announcer";
import { Breath } from "./breath";
import { lightsOf, showLights } from "./lights";
import { Picker } from "./picker";
import { RHYTHMS, type Rhythm, rhythmOf } from "./rhythm";
import { presentWords, roomSentence, stateWords } from "./words";

const RHYTHM = "breathing-room:rhythm";

const name = location.pathname.split("/")[2] ?? "lobby";
const MOOD = `breathing-room:mood:${name}`;
setText(element("room"), name);
document.title = `${name} – breathing room`;

// The breath, which needs no connection.

const chosen = rhythmOf(kept("localStorage", RHYTHM));
const breath = new Breath(chosen);
describe(chosen);
element("rhythms").append(
  ...RHYTHMS.map(({ id }) => {
    const input = h("input", { type: "radio", name: "rhythm", value: id });
    input.checked = id === chosen.id;
    return h("label", {}, input, h("span", {}, id === "box" ? "Box" : id));
  }),
);
element("rhythms").addEventListener("change", (event) => {
  const rhythm = rhythmOf((event.target as HTMLInputElement).value);
  keep("localStorage", RHYTHM, rhythm.id);
  breath.follow(rhythm);
  describe(rhythm);
});

function describe(rhythm: Rhythm): void {
  setText(element("rhythm-description"), rhythm.description);
}

// The room, which does. A reload keeps the mood, a later visit begins without one.

const room = joinRoom({ room: name, mood: kept("sessionStorage", MOOD) });
let wasHere = false;
const announcer = new Announcer((text) => setText(element("announcer"), text));
const picker = new Picker(element("picker"), (choice) => {
  keep("sessionStorage", MOOD, choice);
  room.setMood(choice);
});

function show(): void {
  const here = room.state === "open";
  wasHere ||= here;
  // What was true before the connection broke may not be true now.
  const present = here ? room.present : 0;
  const moods = here ? room.moods : {};
  setText(element("present"), here ? String(present) : "–");
  setText(element("people"), here ? presentWords(present) : "\u00a0");
  showLights(element("lights"), lightsOf(present, moods));
  picker.offer(room.vocabulary, room.mood);
  picker.count(moods);
  const words = stateWords(room.state, navigator.onLine, wasHere);
  setText(element("state-words"), words);
  element("lamp").className = `lamp ${room.state}`;
  announcer.say(here ? `${words} ${roomSentence(present, moods)}` : words);
}

room.addEventListener("state", show);
room.addEventListener("presence", show);
addEventListener("online", show);
addEventListener("offline", show);
room.pageView(undefined, { title: document.title });
show();
