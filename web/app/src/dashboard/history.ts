// The history: what is asked for, when it is asked again, and what is said when no answer comes.

import { element, h, setText } from "../dom";
import { Charts } from "./charts";
import { Dates, count, duration } from "./format";
import { Ranking } from "./ranking";
import { type Question, RANGES, type Range, type Stats, fetchStats } from "./stats";
import { Tiles } from "./tiles";
import { whileVisible } from "./visible";

const EVERY = 60_000; // ms
const MOST = 8;
const ROOM = /^([a-z0-9][a-z0-9-]{0,63})?$/;

export class History {
  readonly #tiles = new Tiles();
  readonly #charts = new Charts();
  readonly #pages = ranking("Top pages", ["Page", "Views"], "No page was seen in this time.");
  readonly #content = ranking("Top content", ["Content", "Sessions", "Time"], "Nothing was watched in this time.");
  readonly #referrers = ranking("Top referrers", ["Referrer", "Views"], "Nobody came by a link from elsewhere.");
  #question = questionOf(location.search);
  #shown: Question | undefined;
  #asking = new AbortController();

  constructor() {
    const input = element<HTMLInputElement>("room-filter");
    input.value = this.#question.room;
    element("ranges").append(...Object.keys(RANGES).map((range) => this.#tab(range as Range)));
    element("ranges").addEventListener("change", (event) => {
      this.#ask({ ...this.#question, range: (event.target as HTMLInputElement).value as Range });
    });
    input.addEventListener("change", () => this.#filter(input));
    // The browser's own ways of choosing: one of the list, or the cross that empties it.
    input.addEventListener("input", () => (input.value === "" || isListed(input.value)) && this.#filter(input));
    element("retry").addEventListener("click", () => void this.#load());
    whileVisible(EVERY, () => this.#load());
  }

  #tab(range: Range): HTMLElement {
    const input = h("input", { type: "radio", name: "range", value: range });
    input.checked = range === this.#question.range;
    return h("label", {}, input, h("span", { title: `The last ${RANGES[range]}` }, range));
  }

  #filter(input: HTMLInputElement): void {
    if (input.reportValidity()) this.#ask({ ...this.#question, room: input.value });
  }

  #ask(question: Question): void {
    if (same(question, this.#question)) return;
    this.#question = question;
    const query = new URLSearchParams({ range: question.range, ...(question.room && { room: question.room }) });
    history.replaceState(null, "", `?${query}`);
    setText(element("notice"), `Asking for the last ${RANGES[question.range]}…`);
    void this.#load();
  }

  async #load(): Promise<void> {
    this.#asking.abort();
    const asking = (this.#asking = new AbortController());
    const question = this.#question;
    element("history").setAttribute("aria-busy", "true");
    try {
      const stats = await fetchStats(question, asking.signal);
      if (asking.signal.aborted) return;
      this.#show(stats);
      this.#shown = question;
    } catch (error) {
      if (asking.signal.aborted) return;
      this.#fail(question, error instanceof Error ? error.message : String(error));
    }
    element("history").setAttribute("aria-busy", "false");
  }

  #show(stats: Stats): void {
    const dates = new Dates(stats.tz);
    const { from, to } = stats.previous;
    setText(element("notice"), `Compared with ${dates.span(from, to)}. Times in ${stats.tz.replaceAll("_", " ")}.`);
    element("retry").hidden = true;
    this.#tiles.show(stats);
    this.#charts.show(stats);
    this.#pages.show(
      stats.topPages.map(({ path, pageViews }) => ({ name: path, size: pageViews, values: [count(pageViews)] })),
    );
    this.#content.show(
      stats.topContent.map(({ content, watchSessions, watchedMs }) => ({
        name: content,
        size: watchedMs,
        values: [`${count(watchSessions)} ×`, duration(watchedMs)],
      })),
    );
    this.#referrers.show(
      stats.topReferrers.map(({ referrer, pageViews }) => ({ name: referrer, size: pageViews, values: [count(pageViews)] })),
    );
  }

  /** What was shown stays where it still is what was asked for. */
  #fail(question: Question, why: string): void {
    const stale = this.#shown && same(this.#shown, question);
    setText(element("notice"), `${why} ${stale ? "This is what it said before." : "There is no history to show."}`);
    element("retry").hidden = false;
    if (stale) return;
    this.#shown = undefined;
    this.#tiles.clear();
    this.#charts.say("No history to show.");
    for (const list of [this.#pages, this.#content, this.#referrers]) list.say("No history to show.");
  }
}

function ranking(title: string, columns: [string, ...string[]], empty: string): Ranking {
  return new Ranking(element("rankings"), { title, columns, empty, most: MOST });
}

function isListed(room: string): boolean {
  return [...element("rooms").children].some((option) => (option as HTMLOptionElement).value === room);
}

function same(a: Question, b: Question): boolean {
  return a.range === b.range && a.room === b.room;
}

/** What the page's address asks for; whatever it does not say rightly is the default. */
export function questionOf(search: string): Question {
  const query = new URLSearchParams(search);
  const [range, room] = [query.get("range") ?? "", query.get("room") ?? ""];
  return { range: Object.hasOwn(RANGES, range) ? (range as Range) : "24h", room: ROOM.test(room) ? room : "" };
}
