// The rooms of both peer hubs, without sockets: who is present, which moods, and when to publish.
//
// It follows docs/protocol.md and the publish window of ARCHITECTURE.md as far as the load tool's
// scenarios fan-out, idle, churn and storm need: sessions and visitors, `mood` messages, `welcome`,
// `presence` with a rising `seq`, coalesced publishes.
//
// It does not do the rest of the hub's work: no history and no acks, no tokens and no origin check, no
// rate limits, no holds and no leave grace, no live activity, no metrics. So a peer does less for each
// join and each message than the hub does.

export const SUBPROTOCOL = 'breathing-room.v1';
/** The longest message from a client, in bytes. */
export const MAX_MESSAGE = 4096;

const VOCABULARY = [
  'calm', 'gratitude', 'presence', 'joy', 'love', 'peace', 'hope', 'tired', 'anxious', 'sad',
];
const MOODS = new Map(VOCABULARY.map((mood, index) => [mood, index]));
const ROOM = /^[a-z0-9][a-z0-9-]{0,63}$/;
const VISITOR = /^[A-Za-z0-9_-]{1,64}$/;

/** A room publishes when nothing has changed for this long, in milliseconds. */
const QUIET = 50;

/** Limits a value. */
const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** One room. `broadcast(seq, text)` sends a state to all its sockets. */
class Room {
  /** Open sockets. */
  sockets = 0;
  seq = 0;
  #visitors = new Map();
  /** Visitors in each mood, in the order of the vocabulary. */
  #moods = new Array(VOCABULARY.length).fill(0);
  #broadcast;
  /** The publish window and the last change, in milliseconds of the monotonic clock. */
  #opens = 0;
  #closes = 0;
  #changed = 0;
  #isPublishing = false;
  #timer;

  constructor(name, broadcast) {
    this.name = name;
    this.#broadcast = broadcast;
  }

  get isEmpty() {
    return this.sockets === 0;
  }

  /** Adds a session. A new visitor with a mood is one change. */
  join(id, mood) {
    this.sockets += 1;
    let visitor = this.#visitors.get(id);
    const isNew = visitor === undefined;
    if (isNew) {
      visitor = { sessions: 0, mood: undefined };
      this.#visitors.set(id, visitor);
    }
    visitor.sessions += 1;
    const hasMoved = mood !== undefined && this.#move(visitor, mood);
    if (isNew || hasMoved) this.#change();
  }

  leave(id) {
    this.sockets -= 1;
    const visitor = this.#visitors.get(id);
    visitor.sessions -= 1;
    if (visitor.sessions > 0) return;
    this.#move(visitor, undefined);
    this.#visitors.delete(id);
    this.#change();
  }

  setMood(id, mood) {
    if (this.#move(this.#visitors.get(id), mood)) this.#change();
  }

  welcome(session, visitor) {
    return JSON.stringify({
      type: 'welcome',
      protocol: 1,
      session,
      visitor,
      room: this.name,
      ...this.#snapshot(),
      vocabulary: VOCABULARY,
      serverTime: Date.now(),
    });
  }

  /** Stops the timer of a room that is removed. */
  end() {
    clearTimeout(this.#timer);
    this.#isPublishing = true;
  }

  #snapshot() {
    const moods = {};
    for (let index = 0; index < VOCABULARY.length; index += 1) {
      if (this.#moods[index] > 0) moods[VOCABULARY[index]] = this.#moods[index];
    }
    return { seq: this.seq, present: this.#visitors.size, moods };
  }

  #move(visitor, mood) {
    if (visitor.mood === mood) return false;
    if (visitor.mood !== undefined) this.#moods[visitor.mood] -= 1;
    if (mood !== undefined) this.#moods[mood] += 1;
    visitor.mood = mood;
    return true;
  }

  #change() {
    const now = performance.now();
    this.seq += 1;
    this.#changed = now;
    if (this.#isPublishing) return;
    this.#isPublishing = true;
    if (this.#opens <= now) {
      // Nothing was published lately. The welcome of the session that joins is sent first.
      queueMicrotask(() => this.#publish());
    } else {
      this.#wait(now);
    }
  }

  #wait(now) {
    const moment = this.#opens > now ? this.#opens : Math.min(this.#closes, this.#changed + QUIET);
    if (moment <= now) return this.#publish();
    this.#timer = setTimeout(() => this.#wait(performance.now()), moment - now);
  }

  #publish() {
    const now = performance.now();
    this.#isPublishing = false;
    // The same window as the hub's: 50 µs and 1 ms for each socket, within these bounds.
    this.#opens = now + clamp(0.05 * this.sockets, 100, 1000);
    this.#closes = now + clamp(this.sockets, 200, 1000);
    this.#broadcast(this.seq, JSON.stringify({ type: 'presence', ...this.#snapshot() }));
  }
}

/** All rooms with sockets. `broadcast(room, seq, text)` sends a state to the sockets of a room. */
export class Rooms {
  #rooms = new Map();
  #broadcast;

  constructor(broadcast) {
    this.#broadcast = broadcast;
  }

  join({ room: name, visitor, mood }) {
    let room = this.#rooms.get(name);
    if (room === undefined) {
      room = new Room(name, (seq, text) => this.#broadcast(room, seq, text));
      this.#rooms.set(name, room);
    }
    room.join(visitor, mood);
    return room;
  }

  leave(room, visitor) {
    room.leave(visitor);
    if (room.isEmpty) {
      room.end();
      this.#rooms.delete(room.name);
    }
  }
}

/** Checks who joins which room in which mood; undefined where the request is not valid. */
export function checkJoin(room, query) {
  const visitor = query.get('visitor') ?? crypto.randomUUID();
  const mood = query.get('mood');
  const isValid = ROOM.test(room) && VISITOR.test(visitor) && (mood === null || MOODS.has(mood));
  return isValid ? { room, visitor, mood: mood === null ? undefined : MOODS.get(mood) } : undefined;
}

/** Handles a message of a client. Returns the error to send, if there is one. */
export function receive(room, visitor, text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return error('bad-json', 'The message is not JSON.');
  }
  if (message?.type !== 'mood') return error('unknown-type', 'This peer takes messages of type mood only.');
  if (message.mood !== null && !MOODS.has(message.mood)) return error('unknown-mood', 'No such mood.');
  room.setMood(visitor, message.mood === null ? undefined : MOODS.get(message.mood));
  return undefined;
}

function error(code, message) {
  return JSON.stringify({ type: 'error', code, message });
}

/** Reads a setting such as `25s`, in seconds. */
export function seconds(setting) {
  return Number.parseInt(setting ?? '25s', 10);
}
