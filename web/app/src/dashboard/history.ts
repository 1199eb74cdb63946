// The history section: its query, periodic refresh and errors.

import { element, h, setText } from "../dom";
import { Charts } from "./charts";
import { Dates, count, duration } from "./format";
import { pollWhileVisible } from "./poll";
import { type Count, OTHER, Ranking, withOther } from "./ranking";
import { RANGES, type Range, type Stats, type StatsQuery, fetchStats } from "./stats";
import { Tiles } from "./tiles";

const INTERVAL = 60_000; // ms
const MAX_ROWS = 8;
const ROOM = /^([a-z0-9][a-z0-9-]{0,63})?$/;

export class History {
  readonly #tiles = new Tiles();
  readonly #charts = new Charts();
  readonly #pages = ranking("Top pages", ["Page", "Views"], "No page views in this period.");
  readonly #content = ranking("Top content", ["Content", "Sessions", "Time"], "Nothing was watched in this period.");
  readonly #referrers = ranking("Top referrers", ["Referrer", "Views"], "No views from other sites in this period.");
  #query = parseQuery(location.search);
  #shown: StatsQuery | undefined;
  #request = new AbortController();

  constructor() {
    const input = element<HTMLInputElement>("room-filter");
    input.value = this.#query.room;
    element("ranges").append(...Object.keys(RANGES).map((range) => this.#rangeButton(range as Range)));
    element("ranges").addEventListener("change", (event) => {
      this.#setQuery({ ...this.#query, range: (event.target as HTMLInputElement).value as Range });
    });
    input.addEventListener("change", () => this.#setRoom(input));
    // A choice from the datalist, or a click on the browser's clear button.
    input.addEventListener("input", () => (input.value === "" || isListed(input.value)) && this.#setRoom(input));
    element("retry").addEventListener("click", () => void this.#load());
    pollWhileVisible(INTERVAL, () => this.#load());
  }

  #rangeButton(range: Range): HTMLElement {
    const input = h("input", { type: "radio", name: "range", value: range });
    input.checked = range === this.#query.range;
    return h("label", {}, input, h("span", { title: `The last ${RANGES[range]}` }, range));
  }

  #setRoom(input: HTMLInputElement): void {
    if (input.reportValidity()) this.#setQuery({ ...this.#query, room: input.value });
  }

  #setQuery(query: StatsQuery): void {
    if (isSame(query, this.#query)) return;
    this.#query = query;
    const params = new URLSearchParams({ range: query.range, ...(query.room && { room: query.room }) });
    history.replaceState(null, "", `?${params}`);
    setText(element("notice"), `Loading the last ${RANGES[query.range]}…`);
    void this.#load();
  }

  async #load(): Promise<void> {
    this.#request.abort();
    const request = (this.#request = new AbortController());
    const query = this.#query;
    element("history").setAttribute("aria-busy", "true");
    try {
      const stats = await fetchStats(query, request.signal);
      if (request.signal.aborted) return;
      this.#show(stats);
      this.#shown = query;
    } catch (error) {
      if (request.signal.aborted) return;
      this.#showError(query, error instanceof Error ? error.message : String(error));
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
    const views = (list: Count[], other: { pageViews: number }) =>
      withOther(list, { name: OTHER, numbers: [other.pageViews] }, MAX_ROWS).map(({ name, numbers: [pageViews] }) => ({
        name,
        size: name === OTHER ? 0 : pageViews!,
        values: [count(pageViews!)],
      }));
    this.#pages.show(views(stats.topPages.map(({ path, pageViews }) => ({ name: path, numbers: [pageViews] })), stats.other.pages));
    this.#referrers.show(
      views(stats.topReferrers.map(({ referrer, pageViews }) => ({ name: referrer, numbers: [pageViews] })), stats.other.referrers),
    );
    const contents = stats.topContent.map((top) => ({ name: top.content, numbers: [top.watchSessions, top.watchedMs] }));
    const { watchSessions, watchedMs } = stats.other.content;
    this.#content.show(
      withOther(contents, { name: OTHER, numbers: [watchSessions, watchedMs] }, MAX_ROWS).map(({ name, numbers: [sessions, ms] }) => ({
        name,
        size: name === OTHER ? 0 : ms!,
        values: [`${count(sessions!)} ×`, duration(ms!)],
      })),
    );
  }

  /** Shows the error. The shown data stay if they are of the same query. */
  #showError(query: StatsQuery, message: string): void {
    const stale = this.#shown && isSame(this.#shown, query);
    setText(element("notice"), `${message} ${stale ? "These are the last numbers it sent." : "There is no history to show."}`);
    element("retry").hidden = false;
    if (stale) return;
    this.#shown = undefined;
    this.#tiles.clear();
    this.#charts.showMessage("No history to show.");
    for (const list of [this.#pages, this.#content, this.#referrers]) list.showMessage("No history to show.");
  }
}

function ranking(title: string, columns: [string, ...string[]], empty: string): Ranking {
  return new Ranking(element("rankings"), { title, columns, empty, maxRows: MAX_ROWS });
}

function isListed(room: string): boolean {
  return [...element("rooms").children].some((option) => (option as HTMLOptionElement).value === room);
}

function isSame(a: StatsQuery, b: StatsQuery): boolean {
  return a.range === b.range && a.room === b.room;
}

/** Parses the query of the page's URL. Invalid parts get the default. */
export function parseQuery(search: string): StatsQuery {
  const params = new URLSearchParams(search);
  const [range, room] = [params.get("range") ?? "", params.get("room") ?? ""];
  return { range: Object.hasOwn(RANGES, range) ? (range as Range) : "24h", room: ROOM.test(room) ? room : "" };
}
