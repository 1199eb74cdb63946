/**
 * The way to the hub: one WebSocket at a time, opened again whenever it is lost.
 *
 * The only place with a WebSocket in it. It knows when to connect; what is said is its user's business.
 * While the socket is open no timer runs.
 */

import type { RoomState } from "./api.js";
import { delay } from "./backoff.js";
import type { FromHub } from "./wire.js";

/** A connection that lasted so long was a good one: the next wait is a short one again. */
const GOOD_AFTER = 10_000;

/** A close code for "lost": unlike 1000, it gives us the hub's grace to come back. */
const LOST = 4000;

export interface User {
  /** Asked before each try. */
  prepare(): Promise<[url: URL, protocols: string[]]>;
  changed(state: RoomState): void;
  /** A message came. With the first one on each socket, the welcome, the state becomes "open". */
  received(message: FromHub): void;
  /** This try could not even begin. */
  failed(reason: unknown): void;
}

export class Connection {
  #user: User;
  #state: RoomState | undefined;
  #socket: WebSocket | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #tries = 0;
  #openedAt = 0;
  /** Counts tries, so that a try that was overtaken while it was prepared goes no further. */
  #attempt = 0;

  constructor(user: User) {
    this.#user = user;
  }

  /** Tries now, unless there is a connection or it is closed for good. */
  connect(): void {
    if (this.#state === "open" || this.#state === "closed") return;
    this.#drop(LOST);
    this.#become("connecting");
    const attempt = this.#attempt;
    this.#user
      .prepare()
      .then((target) => {
        if (attempt === this.#attempt) this.#open(new WebSocket(...target));
      })
      .catch((reason: unknown) => {
        if (attempt !== this.#attempt) return;
        this.#user.failed(reason);
        this.#lost(1006);
      });
  }

  send(text: string): void {
    this.#socket?.send(text);
  }

  /** Gives the socket up without leaving, and comes back after a while, or when told to. */
  lose(): void {
    if (this.#state === "closed") return;
    this.#drop(LOST);
    this.#lost(1006);
  }

  /** Leaves, for good. */
  close(): void {
    this.#drop(1000);
    this.#become("closed");
  }

  #open(socket: WebSocket): void {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      this.#user.received(JSON.parse(data as string));
      if (socket === this.#socket) this.#become("open");
    };
    socket.onclose = ({ code }) => this.#lost(code);
  }

  #drop(code: number): void {
    this.#attempt++;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    // What a socket still says after it was given up is of no interest: its end may take long.
    socket.onmessage = socket.onclose = null;
    socket.close(code);
  }

  #lost(code: number): void {
    this.#socket = undefined;
    if (this.#state === "open" && performance.now() - this.#openedAt > GOOD_AFTER) this.#tries = 0;
    const wait = delay(code, this.#tries++);
    if (wait === undefined) return this.#become("closed");
    this.#timer = setTimeout(() => this.connect(), wait);
    this.#become("waiting");
  }

  #become(state: RoomState): void {
    if (this.#state === state) return;
    this.#state = state;
    if (state === "open") this.#openedAt = performance.now();
    this.#user.changed(state);
  }
}
