/**
 * The connection to the hub: one WebSocket at a time, with automatic reconnect, to the first of its addresses that
 * works.
 *
 * The only file that uses WebSocket. It decides when to connect and whether the path still works; its handler reads and
 * writes the messages.
 */

import type { RoomError, RoomState } from "./api.js";
import { delay, requestedWait } from "./backoff.js";
import { Liveness } from "./liveness.js";
import type { HubMessage } from "./messages.js";
import { whyRefused } from "./refusal.js";

/** After a connection of this length (ms), the backoff starts again at its shortest delay. */
const STABLE_AFTER = 10_000;

/** Limit (ms) of an attempt, from the socket to the welcome. */
const TIMEOUT = 20_000;

/** A wake replaces an attempt that is older than this (ms). */
const OLD_ATTEMPT = 10_000;

/** Close code of a lost connection. Unlike 1000 it starts the hub's leave grace, and does not end a sit. */
const LOST = 4000;

export interface Target {
  url: URL;
  protocols: string[];
  token: string | undefined;
}

export interface Handler {
  /** Returns what to connect to. Called before each attempt with the address to try. */
  prepare(address: string): Promise<Target>;
  onState(state: RoomState): void;
  /**
   * Handles a message. The first one of each socket is the welcome; after it the state becomes "open". `sentAt` is when
   * that was sent which the message answers, by the monotonic clock.
   */
  onMessage(message: HubMessage, sentAt: number | undefined): void;
  onError(error: RoomError): void;
  /** The page or the device slept. */
  onLate(): void;
  /** The hub refused the upgrade: the state is "closed" until `reopen()`. */
  onRefused(): void;
  /** Whether a token that has ended can be replaced. */
  canRenew(): boolean;
}

export class Connection {
  /** Finds out whether the path to the hub works. */
  readonly liveness: Liveness;

  #handler: Handler;
  #addresses: readonly string[];
  /** Index of the current address. */
  #index = 0;
  /** For each address, until when the hub asked not to connect, by the monotonic clock. */
  #notBefore: number[] = [];
  #state: RoomState | undefined;
  #socket: WebSocket | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Failed attempts in a row. */
  #failures = 0;
  #openedAt = 0;
  /** When the attempt began, or its socket was created. */
  #startedAt = 0;
  /** When the pings were sent that the hub has not answered. */
  #pings: number[] = [];
  /** Number of the current attempt. A superseded attempt stops when its `prepare` is done. */
  #attempt = 0;

  constructor(addresses: readonly string[], handler: Handler) {
    this.#addresses = addresses;
    this.#handler = handler;
    this.liveness = new Liveness({
      ping: () => {
        this.#pings.push(performance.now());
        this.send('{"type":"ping"}');
      },
      onLate: () => handler.onLate(),
      onDoubt: () => this.#setState("checking"),
      onDead: () => this.#connect(),
    });
  }

  /** The address in use. */
  get address(): string {
    return this.#addresses[this.#index]!;
  }

  get #isJoined(): boolean {
    return this.#state === "open" || this.#state === "checking";
  }

  /** Connects now, unless it is connected or closed, or the hub asked to wait. */
  connect(): void {
    if (this.#isJoined || this.#state === "closed") return;
    if (this.#state === "connecting" && performance.now() - this.#startedAt < OLD_ATTEMPT) return;
    if (this.#timeToWait() <= 0) this.#connect();
  }

  /** Checks the path after a sleep of the page, or connects. */
  wake(): void {
    if (this.#isJoined) this.liveness.wake();
    else this.connect();
  }

  /** Connects although the hub had refused the last token. */
  reopen(): void {
    if (this.#state === "closed") this.#connect();
  }

  send(text: string): void {
    this.#socket?.send(text);
  }

  /** Closes the socket as lost. Reconnects after the backoff delay, or at the next `connect()`. */
  reset(): void {
    if (this.#state === "closed") return;
    this.#discard(LOST);
    this.#retry();
  }

  /** Leaves until the next `connect()`. */
  pause(): void {
    if (this.#state === "closed") return;
    this.#discard(1000);
    this.#setState("waiting");
  }

  /** Closes the connection for good. */
  close(): void {
    this.#discard(1000);
    this.#setState("closed");
  }

  #connect(): void {
    this.#discard(LOST);
    this.#setState("connecting");
    this.#startedAt = performance.now();
    const attempt = this.#attempt;
    this.#handler
      .prepare(this.address)
      .then((target) => {
        if (attempt === this.#attempt) this.#open(target);
      })
      .catch((reason: unknown) => {
        if (attempt !== this.#attempt) return;
        this.#handler.onError({ code: "connect", message: String(reason) });
        this.#retry();
      });
  }

  #open(target: Target): void {
    const socket = new WebSocket(target.url, target.protocols);
    this.#socket = socket;
    this.#startedAt = performance.now();
    this.#pings = [];
    this.#timer = setTimeout(() => this.#fail(), TIMEOUT);
    socket.onmessage = ({ data }) => {
      this.#receive(JSON.parse(data as string));
    };
    socket.onclose = ({ code, reason }) => this.#onClose(target, code, reason);
  }

  #receive(message: HubMessage): void {
    const isWelcome = !this.#isJoined;
    if (isWelcome) {
      clearTimeout(this.#timer);
      this.liveness.start();
    }
    const isError = message.type === "error" && !message.ref;
    // An older hub does not know the message `ping`; its error is an answer too.
    const isPong = message.type === "pong" || (isError && message.code === "unknown-type" && this.#pings.length > 0);
    const sentAt = isWelcome ? this.#startedAt : isPong ? this.#pings.shift() : undefined;
    const isAlive = this.liveness.heard(isWelcome || isPong || isError);
    const socket = this.#socket;
    if (!isPong || !isError) this.#handler.onMessage(message, sentAt);
    if (isAlive && socket === this.#socket) this.#setState("open");
  }

  #onClose(target: Target, code: number, reason: string): void {
    const wasJoined = this.#isJoined;
    if (wasJoined && performance.now() - this.#openedAt > STABLE_AFTER) this.#failures = 0;
    this.#socket = undefined;
    this.#discard(LOST);
    const isRenewable = reason === "token-expired" && this.#handler.canRenew();
    if (code === 1008 && !isRenewable) {
      return this.#refuse({ code: reason || "closed", message: "the hub closed the connection (1008)" });
    }
    const wait = requestedWait(code);
    this.#wait(wait);
    if (wasJoined && !wait) this.#retry();
    else void this.#fail(code === 1006 ? target : undefined);
  }

  /** Handles a failed attempt: asks why if there may be an answer, and goes on with the next address. */
  async #fail(target?: Target): Promise<void> {
    this.#discard(LOST);
    const attempt = this.#attempt;
    const refusal = target && (await whyRefused(target.url, target.token));
    if (attempt !== this.#attempt) return;
    if (refusal) {
      const { wait, ...error } = refusal;
      if (error.status === 401 || error.status === 403) return this.#refuse(error);
      this.#handler.onError(error);
      if (attempt !== this.#attempt) return;
      this.#wait(wait * (1 + Math.random() / 2));
    }
    this.#index = (this.#index + 1) % this.#addresses.length;
    this.#retry();
  }

  #refuse(error: RoomError): void {
    this.#setState("closed");
    this.#handler.onError(error);
    if (error.status) this.#handler.onRefused();
  }

  #wait(ms: number): void {
    this.#notBefore[this.#index] = performance.now() + ms;
  }

  #timeToWait(): number {
    return (this.#notBefore[this.#index] ?? 0) - performance.now();
  }

  #retry(): void {
    const wait = Math.max(delay(this.#failures++), this.#timeToWait());
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#setState("waiting");
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

  #setState(state: RoomState): void {
    if (this.#state === state) return;
    if (state === "open" && !this.#isJoined) this.#openedAt = performance.now();
    this.#state = state;
    if (!this.#isJoined) this.liveness.stop();
    this.#handler.onState(state);
  }
}
