/**
 * The connection to the hub: one WebSocket at a time, with automatic reconnect.
 *
 * The only file that uses WebSocket. It decides when to connect; its handler reads and writes the messages. No timer
 * runs while the socket is open.
 */

import type { RoomState } from "./api.js";
import { delay } from "./backoff.js";
import type { HubMessage } from "./messages.js";

/** After a connection of this length (ms), the backoff starts again at its shortest delay. */
const STABLE_AFTER = 10_000;

/** Close code of a lost connection. Unlike 1000 it starts the hub's leave grace. */
const LOST = 4000;

export interface Handler {
  /** Returns the arguments of the WebSocket. Called before each attempt. */
  prepare(): Promise<[url: URL, protocols: string[]]>;
  onState(state: RoomState): void;
  /** Handles a message. The first one of each socket is the welcome; after it the state becomes "open". */
  onMessage(message: HubMessage): void;
  /** Handles an attempt that failed before the socket was created. */
  onError(reason: unknown): void;
}

export class Connection {
  #handler: Handler;
  #state: RoomState | undefined;
  #socket: WebSocket | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Failed attempts in a row. */
  #failures = 0;
  #openedAt = 0;
  /** Number of the current attempt. A superseded attempt stops when its `prepare` is done. */
  #attempt = 0;

  constructor(handler: Handler) {
    this.#handler = handler;
  }

  /** Connects now, unless the state is "open" or "closed". */
  connect(): void {
    if (this.#state === "open" || this.#state === "closed") return;
    this.#discard(LOST);
    this.#setState("connecting");
    const attempt = this.#attempt;
    this.#handler
      .prepare()
      .then((target) => {
        if (attempt === this.#attempt) this.#open(new WebSocket(...target));
      })
      .catch((reason: unknown) => {
        if (attempt !== this.#attempt) return;
        this.#handler.onError(reason);
        this.#reconnect(1006);
      });
  }

  send(text: string): void {
    this.#socket?.send(text);
  }

  /** Closes the socket as lost. Reconnects after the backoff delay, or at the next `connect()`. */
  reset(): void {
    if (this.#state === "closed") return;
    this.#discard(LOST);
    this.#reconnect(1006);
  }

  /** Closes the connection for good. */
  close(): void {
    this.#discard(1000);
    this.#setState("closed");
  }

  #open(socket: WebSocket): void {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      this.#handler.onMessage(JSON.parse(data as string));
      if (socket === this.#socket) this.#setState("open");
    };
    socket.onclose = ({ code }) => this.#reconnect(code);
  }

  #discard(code: number): void {
    this.#attempt++;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    // The close handshake may take long; messages that arrive during it are ignored.
    socket.onmessage = socket.onclose = null;
    socket.close(code);
  }

  #reconnect(code: number): void {
    this.#socket = undefined;
    if (this.#state === "open" && performance.now() - this.#openedAt > STABLE_AFTER) this.#failures = 0;
    const wait = delay(code, this.#failures++);
    if (wait === undefined) return this.#setState("closed");
    this.#timer = setTimeout(() => this.connect(), wait);
    this.#setState("waiting");
  }

  #setState(state: RoomState): void {
    if (this.#state === state) return;
    this.#state = state;
    if (state === "open") this.#openedAt = performance.now();
    this.#handler.onState(state);
  }
}
