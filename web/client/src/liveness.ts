/**
 * Decides when to ask the hub whether the path to it works, because a browser does not show a page the pings of the
 * WebSocket protocol. Any message is a sign of life. Runs one timer in a visible page, none in a hidden one; knows no
 * socket.
 */

const TICK = 1_000; // ms

/** A tick that is late by more than this (ms) means that the page or the device slept. */
const LATE = 5_000;

/** Within this time (ms) the hub must answer. */
const ANSWER = 3_000;

/** Messages that come sooner (ms) after a wake may have waited in the browser, so only an answer counts. */
const STALE = 500;

/** The clock is compared at least once in this many ping intervals. */
const COMPARE_AFTER = 10;

export interface LivenessHandler {
  ping(): void;
  /** The page or the device slept. */
  onLate(): void;
  /** There is no answer yet. */
  onDoubt(): void;
  /** There was no answer. */
  onDead(): void;
}

export class Liveness {
  /** Silence (ms) after which the client asks. */
  pingAfter = 60_000;
  /** When the ping that waits for its answer was sent, by the monotonic clock. */
  pingedAt: number | undefined;

  #handler: LivenessHandler;
  #timer: ReturnType<typeof setInterval> | undefined;
  #heard = [0, 0];
  #ticked = [0, 0];
  #answeredAt = 0;
  #woke = false;

  constructor(handler: LivenessHandler) {
    this.#handler = handler;
  }

  /** Milliseconds since the last sign of life; 0 before the first. */
  get age(): number {
    return this.#heard[1] ? since(this.#heard) : 0;
  }

  /** Begins with a new socket, or when the page is visible again. */
  start(): void {
    this.stop();
    this.pingedAt = undefined;
    this.#woke = false;
    this.#ticked = clocks();
    if (!document.hidden) this.#timer = setInterval(() => this.#tick(), TICK);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Notes a message, and whether it answers a ping. Returns whether it is a sign of life. */
  heard(isAnswer: boolean): boolean {
    const now = performance.now();
    if (this.#woke && !isAnswer && now - this.pingedAt! < STALE) return false;
    if (isAnswer) this.#answeredAt = now;
    this.#heard = clocks();
    this.#woke = false;
    this.pingedAt = undefined;
    return true;
  }

  /** Asks at once, after a wake. */
  wake(): void {
    if (this.#woke && performance.now() - this.pingedAt! < ANSWER) return;
    this.start();
    this.ask();
    this.#woke = true;
    this.#handler.onDoubt();
  }

  ask(): void {
    this.pingedAt = performance.now();
    this.#handler.ping();
  }

  #tick(): void {
    const late = since(this.#ticked) - TICK;
    this.#ticked = clocks();
    if (late > LATE) return this.#handler.onLate();
    const now = performance.now();
    if (this.pingedAt === undefined) {
      const isSilent = now - this.#heard[0]! >= this.pingAfter;
      if (isSilent || now - this.#answeredAt >= this.pingAfter * COMPARE_AFTER) this.ask();
    } else if (now - this.pingedAt >= ANSWER) {
      this.#handler.onDead();
    } else {
      this.#handler.onDoubt();
    }
  }
}

/** The monotonic clock and the device's. Some monotonic clocks stand still while the device sleeps. */
const clocks = (): number[] => [performance.now(), Date.now()];

const since = ([monotonic, wall]: number[]): number => Math.max(performance.now() - monotonic!, Date.now() - wall!);
