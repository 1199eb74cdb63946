// A plain page that joins a room and shows its counts. The open socket is the presence: there is no
// heartbeat here, and nothing to tidy up when the page goes away.
"use strict";

const room = location.pathname.startsWith("/room/") ? location.pathname.split("/")[2] : "lobby";
const element = (id) => document.getElementById(id);

const FIRST_WAIT = 500; // ms; doubles with every failed try
const LONGEST_WAIT = 30_000; // ms

let socket;
let mood = null;
let tries = 0;

function visitor() {
  try {
    const kept = localStorage.getItem("breathing-room.visitor") ?? crypto.randomUUID();
    localStorage.setItem("breathing-room.visitor", kept);
    return kept;
  } catch {
    return null; // no storage: the hub makes an id up for this socket
  }
}

function address() {
  const url = new URL(`/rooms/${room}/socket`, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const id = visitor();
  if (id) url.searchParams.set("visitor", id);
  if (mood) url.searchParams.set("mood", mood);
  return url;
}

function connect() {
  socket = new WebSocket(address(), "breathing-room.v1");
  socket.onmessage = ({ data }) => take(JSON.parse(data));
  socket.onclose = ({ code }) => wait(code);
}

function take(message) {
  switch (message.type) {
    case "welcome":
      tries = 0;
      showPicker(message.vocabulary);
      showCounts(message);
      element("state").textContent = "You are here.";
      break;
    case "presence":
      showCounts(message);
      break;
    case "error":
      element("state").textContent = `The hub said: ${message.message}`;
      break;
  }
}

// Full jitter, so that a hub that restarts is not met by everybody at once.
function wait(code) {
  if (code === 1008) {
    hideCounts();
    element("state").textContent = "The hub does not let you in. Reload the page to try again.";
    return;
  }
  const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** tries++);
  const delay = Math.random() * (code === 1013 ? LONGEST_WAIT : longest);
  hideCounts();
  element("state").textContent =
    code === 1012 ? "The hub restarts. Coming back in a moment…" : "Connection lost. Coming back in a moment…";
  setTimeout(connect, delay);
}

function showCounts({ present, moods }) {
  element("present").textContent = present;
  element("people").textContent = present === 1 ? "person is here" : "people are here";
  element("moods").replaceChildren(
    ...Object.entries(moods).map(([name, count]) => {
      const item = document.createElement("li");
      item.textContent = `${name} ${count}`;
      return item;
    }),
  );
}

// What was true before the connection broke may not be true now.
function hideCounts() {
  element("present").textContent = "–";
  element("people").textContent = "here";
  element("moods").replaceChildren();
  for (const button of element("picker").children) button.disabled = true;
}

function showPicker(vocabulary) {
  element("picker").replaceChildren(
    ...vocabulary.map((name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.setAttribute("aria-pressed", name === mood);
      button.onclick = () => setMood(name === mood ? null : name);
      return button;
    }),
  );
}

function setMood(name) {
  mood = name;
  socket.send(JSON.stringify({ type: "mood", mood }));
  for (const button of element("picker").children) {
    button.setAttribute("aria-pressed", button.textContent === mood);
  }
}

element("room").textContent = `Breathing room: ${room}`;
connect();
