/**
 * The connection to the hub: one WebSocket at a time, with automatic reconnect, to the first of its addresses that
 * works.
 *
 * The only file that uses WebSocket. It decides when to connect, with which token, and when to ask whether the path
 * still works, because a browser does not show a page the pings of the WebSocket protocol. Any message is a sign of
 * life. Its handler reads and writes the messages.
 */

import type { RoomError, RoomState } from "./api.js";
import { delay, requestedWait } from "./backoff.js";
import type { HubClock } from "./hub-clock.js";
import type { HubMessage } from "./messages.js";
import { whyRefused } from "./refusal.js";
import { createTimer } from "./timer.js";
import type { TokenSource } from "./token.js";

const PROTOCOL = "breathing-room.v1";

/** After a connection of this length (ms), the backoff starts again at its shortest delay. */
const STABLE_AFTER = 10_000;

/** Limit (ms) of an attempt, from the token to the welcome. */
const TIMEOUT = 30_000;

/** Silence (ms) after which the client sends a ping to a hub that does not say when. */
const PING_AFTER = 60_000;

/** Interval (ms) of the checks of the path. */
const TICK = 1_000;

/** A check that is late by more than this (ms) means that the page or the device slept. */
const LATE = 5_000;

/** Within this time (ms) the hub must answer a ping. */
const ANSWER = 3_000;

/** Messages that come sooner (ms) after a wake may have waited in the browser, so only an answer counts. */
const STALE = 500;

/** The hub's clock is compared after a message, once in this many checks. */
const COMPARE_AFTER = 600;

/** Close code of a visitor who leaves at once. It ends the sit. */
export const LEFT = 1000;

/** Close code of a lost connection, or of a page that gives up its socket. Unlike 1000 it starts the hub's leave grace, and does not end a sit. */
export const LOST = 4000;

/** Close code of a page that the visitor has left: the hub's leave grace, and then the end of the sit. */
export const PAGE_LEFT = 4001;

export interface Handler {
  /** Returns the visitor's id. Called before each attempt. */
  prepare(): Promise<string>;
  onState(state: RoomState, isJoined: boolean): void;
  /** Handles a message. The first one of each socket is the welcome; after it the state becomes "open". */
  onMessage(message: HubMessage): void;
  onError(error: RoomError): void;
}

export interface Connection {
  /** Returns the address in use. */
  address(): string;
  /** Returns the milliseconds since the hub's last sign of life. */
  age(): number;
  /**
   * Connects now, unless it is closed or the hub asked to wait. If it is connected, it checks the path, because the page
   * may have slept; a hidden page does so when it is visible.
   */
  wake(): void;
  send(message: object): void;
  /** Connects with the token's new option, or sends its token. */
  renew(): void;
  /** Closes the socket, if there is one, with this code. Reconnects after the backoff delay, or at the next `wake()`. */
  reset(code: number): void;
  /** Closes the socket with this code: until the next `wake()`, or for good. */
  leave(state: "waiting" | "closed", code: number): void;
}

/** `path` is the socket's, below an address. */
export function createConnection(
  addresses: readonly string[],
  path: string,
  clock: HubClock,
  token: TokenSource,
  { prepare, onState, onMessage, onError }: Handler,
): Connection {
  let state: RoomState = "waiting";
  /** Whether the state is "open" or "checking". */
  let isJoined = false;
  let socket: WebSocket | undefined;
  /** Who joins with it. */
  let visitor = "";
  /** Index of the current address. */
  let index = 0;
  /** For each address, until when the hub asked not to connect, by the monotonic clock. */
  const notBefore: number[] = [];
  const timer = createTimer();
  /** Failed attempts in a row. */
  let failures = 0;
  /** Addresses that have refused this token or page in a row. */
  let refusals = 0;
  /** When the socket was created, or after the welcome, when it came. */
  let openedAt = 0;
  /** Number of the current attempt. A superseded attempt stops at its next step. */
  let attempt = 0;
  /** When that was sent which the hub has not answered with its time. */
  let pings: number[] = [];
  /** When the last ping was sent, until there is a sign of life. */
  let askedAt: number | undefined;
  /** Whether it was sent after a wake. */
  let woke = false;
  /** Number of checks after which it sends a ping if it has heard nothing. */
  let patience = 0;
  /** Number of checks since the last message, and since the last answer. */
  let quiet = 0;
  let unanswered = 0;
  /** When the last message came, and when the last check was, by the device's clock: it goes on in a sleep. */
  let heardAt: number | undefined;
  let tickedAt = 0;
  let interval: ReturnType<typeof setInterval> | undefined;

  const address = (): string => addresses[index]!;
  const timeToWait = (): number => (notBefore[index] || 0) - performance.now();
  const sendToken = (token: string): void => send({ type: "token", token });

  function setState(next: RoomState): void {
    if (state === next) return;
    const wasJoined = isJoined;
    state = next;
    isJoined = state === "open" || state === "checking";
    if (!isJoined) {
      clearInterval(interval);
      token.stop();
    } else if (!wasJoined) {
      tickedAt = Date.now();
      interval = setInterval(tick, TICK);
      token.keep(sendToken);
    }
    onState(state, isJoined);
  }

  function discard(code: number): number {
    timer.clear();
    if (socket) {
      // The close handshake may take long; messages that arrive during it are ignored.
      socket.onmessage = socket.onclose = null;
      socket.close(code);
      socket = undefined;
    }
    return ++attempt;
  }

  function send(message: object): void {
    socket?.send(JSON.stringify(message));
  }

  async function connectNow(): Promise<void> {
    const mine = discard(LOST);
    setState("connecting");
    timer.set(TIMEOUT, fail);
    try {
      const bearer = await token.get();
      visitor = await prepare();
      if (mine !== attempt) return;
      const protocols = [PROTOCOL, `visitor.${visitor}`];
      if (bearer) protocols.push(`bearer.${bearer}`);
      socket = new WebSocket((address() + path).replace("http", "ws"), protocols);
      openedAt = performance.now();
      socket.onmessage = ({ data }) => receive(JSON.parse(data as string) as HubMessage);
      socket.onclose = ({ code, reason }) => {
        socket = undefined;
        if (isJoined && performance.now() - openedAt > STABLE_AFTER) failures = 0;
        if (code === 1008 && !(reason === "token-expired" && token.isRenewable())) {
          return refuse({ code: reason || "closed", message: `closed: ${reason}` });
        }
        const wait = requestedWait(code);
        delayAddress(wait);
        if (isJoined && !wait) retry();
        else void fail(code === 1006);
      };
    } catch (reason) {
      if (mine !== attempt) return;
      retry();
      onError({ code: "connect", message: String(reason) });
    }
  }

  function receive(message: HubMessage): void {
    const { type } = message;
    const isWelcome = type === "welcome";
    if (isWelcome) {
      timer.clear();
      pings = [openedAt];
      refusals = 0;
      openedAt = performance.now();
      patience = (message.pingAfterMs ?? PING_AFTER) / TICK;
    }
    const hasTime = isWelcome || type === "pong";
    // A hub may answer a ping with an error: an older one, or after too many messages.
    const isAnswer = hasTime || (type === "error" && !message.ref);
    const sentAt = (isAnswer && pings.shift()) as number;
    const isPrecise = hasTime && sentAt >= 0 && clock.sample(message.serverTime, sentAt);
    const isAlive = isAnswer || !woke || sinceAsked() > STALE;
    if (isAlive) {
      heardAt = Date.now();
      quiet = 0;
      if (isAnswer) unanswered = 0;
      askedAt = undefined;
      woke = false;
    }
    onMessage(message);
    // The page may have left.
    if (!isAlive || !socket) return;
    setState("open");
    // After a message the radio of a phone is awake, so that both ways of the round trip take equally long.
    const mustCompare = isWelcome ? !isPrecise : unanswered >= COMPARE_AFTER;
    if (mustCompare && !document.hidden) ask();
  }

  function ask(): void {
    askedAt = performance.now();
    pings.push(askedAt);
    send({ type: "ping" });
  }

  function sinceAsked(): number {
    return performance.now() - askedAt!;
  }

  /** Returns whether the checks stood still: the page or the device slept, or there was no connection. */
  function hasSlept(): boolean {
    const isLate = Date.now() - tickedAt > TICK + LATE;
    tickedAt = Date.now();
    if (isLate) clock.wake();
    return isLate;
  }

  function tick(): void {
    const mustWake = hasSlept();
    // A hidden page asks nothing: it asks when it is visible.
    if (document.hidden) return;
    if (mustWake) wake();
    else if (askedAt === undefined) {
      unanswered++;
      if (++quiet >= patience) ask();
    } else if (sinceAsked() < ANSWER) setState("checking");
    else void connectNow();
  }

  /** Handles a failed attempt: asks why, if there may be an answer, and goes on with the next address. */
  async function fail(mayAsk?: boolean): Promise<void> {
    const mine = attempt;
    const refusal = mayAsk ? await whyRefused(address() + path, visitor, token.current) : undefined;
    if (mine !== attempt) return;
    refusals = refusal?.wait === Infinity ? (refusals % addresses.length) + 1 : 0;
    if (refusals === addresses.length) return refuse(refusal!.error);
    discard(LOST);
    if (refusal) delayAddress(refusals ? 0 : refusal.wait);
    index = (index + 1) % addresses.length;
    retry();
    if (refusal) onError(refusal.error);
  }

  function refuse(error: RoomError): void {
    discard(LOST);
    setState("closed");
    if (error.status) token.retry(connectNow);
    onError(error);
  }

  function delayAddress(wait: number): void {
    notBefore[index] = performance.now() + wait;
  }

  function retry(): void {
    timer.set(Math.max(delay(failures++), timeToWait()), connectNow);
    setState("waiting");
  }

  function wake(): void {
    hasSlept();
    if (!isJoined) {
      if (state === "waiting" && timeToWait() <= 0) void connectNow();
    } else if (!document.hidden && !(woke && sinceAsked() < ANSWER)) {
      woke = true;
      ask();
      setState("checking");
    }
  }

  return {
    address,
    age: () => (heardAt ? Date.now() - heardAt : 0),
    wake,
    send,
    renew() {
      if (isJoined) void token.renew(sendToken);
      else void connectNow();
    },
    reset(code) {
      if (!socket) return;
      discard(code);
      retry();
    },
    leave(next, code) {
      discard(code);
      token.stop();
      setState(next);
    },
  };
}
