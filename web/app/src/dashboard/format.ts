// Formats numbers, durations and dates in the page's language. Pure.

import type { Step } from "./stats";

const HOUR = 3_600_000; // ms
const LANGUAGE = "en-GB";
const integer = new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: 1 });
const small = new Intl.NumberFormat(LANGUAGE, { maximumSignificantDigits: 2 });

/** Formats a count. */
export function count(number: number): string {
  return integer.format(number);
}

/** Formats an average; small ones get two significant digits. */
export function average(number: number): string {
  const format = number >= 100 ? integer : number >= 1 ? tenth : small;
  return format.format(number);
}

/** Formats a duration in its two largest units. */
export function duration(ms: number): string {
  const minutes = Math.round(ms / 60_000);
  if (ms > 0 && minutes === 0) return "< 1 min";
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 100 ? `${hours} h ${minutes % 60} min` : `${count(hours)} h`;
}

/** Formats an age in its largest unit. */
export function age(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

export interface Change {
  /** The visible text, such as "+12 %". */
  short: string;
  /** The text for screen readers, such as "12 percent more than". */
  spoken: string;
}

/** Compares a number with the previous period's. */
export function change(now: number, before: number): Change {
  if (before === 0) return now === 0 ? { short: "as before", spoken: "as many as" } : { short: "none before", spoken: "none" };
  const percent = Math.round(((now - before) / before) * 100);
  if (percent === 0) return { short: "±0 %", spoken: "about the same as" };
  const size = count(Math.abs(percent));
  return percent > 0
    ? { short: `+${size} %`, spoken: `${size} percent more than` }
    : { short: `−${size} %`, spoken: `${size} percent less than` };
}

/** Formats a count with its noun. */
export function plural(number: number, one: string, many: string): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Formats dates and times in a time zone. */
export class Dates {
  readonly #format: (options: Intl.DateTimeFormatOptions) => (at: number) => string;
  readonly time: (at: number) => string;
  readonly day: (at: number) => string;
  readonly dayOfWeek: (at: number) => string;
  readonly month: (at: number) => string;
  readonly monthOfYear: (at: number) => string;

  constructor(timeZone: string) {
    this.#format = (options) => {
      const format = new Intl.DateTimeFormat(LANGUAGE, { ...options, timeZone });
      return (at) => format.format(at);
    };
    this.time = this.#format({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    this.day = this.#format({ day: "numeric", month: "short" });
    this.dayOfWeek = this.#format({ weekday: "short", day: "numeric", month: "short" });
    this.month = this.#format({ month: "short" });
    this.monthOfYear = this.#format({ month: "long", year: "numeric" });
  }

  /** Formats a bucket by its start. */
  bucket(at: number, step: Step): string {
    switch (step) {
      case "hour":
        return `${this.dayOfWeek(at)}, ${this.time(at)}`;
      case "day":
        return this.dayOfWeek(at);
      case "month":
        return this.monthOfYear(at);
    }
  }

  /** Formats a period; `to` is exclusive. */
  span(from: number, to: number): string {
    if (to - from <= 36 * HOUR) return `${this.day(from)}, ${this.time(from)} – ${this.day(to)}, ${this.time(to)}`;
    // A period of long ago has whole days of UTC, each of which counts to the local day of its noon.
    const isMidnight = (at: number): boolean => at % (24 * HOUR) === 0;
    const first = isMidnight(from) ? from + 12 * HOUR : from;
    const last = isMidnight(to) ? to - 12 * HOUR : to - 1;
    return `${this.day(first)} – ${this.day(last)}`;
  }
}
