import { describe, expect, test } from "vitest";
import { bucketText, toAligned } from "../src/dashboard/chart";
import { moodsData, presentData, viewsData, watchedData } from "../src/dashboard/charts";
import { Dates, age, average, change, count, duration, plural } from "../src/dashboard/format";
import { type Health, healthText } from "../src/dashboard/health";
import { parseQuery } from "../src/dashboard/history";
import { type ClusterNode, atLeast, nodeCells, nodeNotes, silentText } from "../src/dashboard/nodes";
import { presentText } from "../src/dashboard/now";
import { withOther } from "../src/dashboard/ranking";
import { type Bucket, type Stats, type Totals, statsPath } from "../src/dashboard/stats";
import { byCount } from "../src/moods";

const HOUR = 3_600_000;
const START = Date.UTC(2026, 10, 3, 13);

const totals: Totals = {
  pageViews: 12,
  visitors: 5,
  watchSessions: 2,
  watchedMs: 90 * 60_000,
  joins: 6,
  peakPresent: 4,
  averagePresent: 1.25,
  sits: { begun: 3, completed: 2, minutes: 40 },
};

function bucket(hour: number, part: Partial<Bucket>): Bucket {
  const zeros = Object.fromEntries(Object.keys(totals).map((key) => [key, 0])) as unknown as Totals;
  return { ...zeros, moods: {}, at: START + hour * HOUR, ...part };
}

const stats: Stats = {
  range: "24h",
  room: null,
  tz: "Europe/Berlin",
  from: START,
  to: START + 2.5 * HOUR,
  step: "hour",
  totals,
  previous: { from: START - 24 * HOUR, to: START, totals },
  series: [
    bucket(0, { pageViews: 3, visitors: 2, peakPresent: 2, averagePresent: 1, moods: { calm: HOUR, joy: HOUR / 2 } }),
    bucket(1, { pageViews: 9, visitors: 4, peakPresent: 4, averagePresent: 2.5, watchedMs: 45 * 60_000 }),
    bucket(2, { moods: { joy: HOUR / 4 } }),
  ],
  topPages: [],
  topContent: [],
  topReferrers: [],
  other: { pages: { pageViews: 0 }, content: { watchSessions: 0, watchedMs: 0 }, referrers: { pageViews: 0 } },
  moods: { joy: 0.75 * HOUR, calm: HOUR },
  generatedAt: START + 2.5 * HOUR,
};

describe("numbers", () => {
  test("are formatted", () => {
    expect(count(1234567)).toBe("1,234,567");
    expect([0, 0.01234, 2.345, 1234.5].map(average)).toEqual(["0", "0.012", "2.3", "1,235"]);
    expect([0, 20_000, 45 * 60_000, 200 * 60_000, 250 * HOUR].map(duration)).toEqual([
      "0 min",
      "< 1 min",
      "45 min",
      "3 h 20 min",
      "250 h",
    ]);
    expect([900, 119_000, 600_000, 3 * HOUR].map(age)).toEqual(["1 s", "119 s", "10 min", "3 h"]);
    expect([plural(1, "room", "rooms"), plural(0, "room", "rooms")]).toEqual(["1 room", "0 rooms"]);
  });

  test("are compared, with a text for screen readers", () => {
    expect(change(112, 100)).toEqual({ short: "+12 %", spoken: "12 percent more than" });
    expect(change(50, 100)).toEqual({ short: "−50 %", spoken: "50 percent less than" });
    expect(change(1001, 1000).short).toBe("±0 %");
    expect(change(0, 0).short).toBe("as before");
    expect(change(3, 0).short).toBe("none before");
  });
});

test("top lists end with the sum of what is outside of them", () => {
  const list = [3, 2, 1].map((number) => ({ name: `/${number}`, numbers: [number] }));
  const other = (number: number) => ({ name: "(other)", numbers: [number] });
  expect(withOther(list, other(0), 3)).toEqual(list);
  expect(withOther(list, other(5), 4)).toEqual([...list, other(5)]);
  expect(withOther(list, other(5), 3)).toEqual([...list.slice(0, 2), other(6)]);
  expect(withOther(list, other(0), 2)).toEqual([...list.slice(0, 1), other(3)]);
});

test("dates use the time zone", () => {
  const dates = new Dates("Europe/Berlin");
  expect(dates.bucket(START, "hour")).toBe("Tue 3 Nov, 14:00");
  expect(dates.bucket(START, "day")).toBe("Tue 3 Nov");
  expect(dates.bucket(START, "month")).toBe("November 2026");
  expect(dates.span(START, START + 24 * HOUR)).toBe("3 Nov, 14:00 – 4 Nov, 14:00");
  expect(dates.span(START, START + 7 * 24 * HOUR)).toBe("3 Nov – 10 Nov");
  expect(new Dates("Asia/Tokyo").time(START)).toBe("22:00");
  for (const zone of ["America/New_York", "UTC", "Asia/Tokyo"]) {
    expect(new Dates(zone).span(Date.UTC(2026, 1, 1), Date.UTC(2026, 2, 1))).toBe("1 Feb – 28 Feb");
  }
});

describe("chart data", () => {
  test("have a summary", () => {
    expect(presentData(stats).summary).toBe("On average 1.3. Most: 4, Tue 3 Nov, 15:00.");
    expect(viewsData(stats).summary).toBe("12 page views by 5 visitors. Most: 9, Tue 3 Nov, 15:00.");
    expect(watchedData(stats).summary).toBe("1 h 30 min in 2 sessions. Most: 45 min, Tue 3 Nov, 15:00.");
    expect(moodsData(stats).summary).toBe("Mostly calm 57 %, joy 43 %.");
  });

  test("have a text for each bucket", () => {
    expect(bucketText(presentData(stats), 1)).toBe("Tue 3 Nov, 15:00 · average 2.5 · peak 4");
    expect(bucketText(moodsData(stats), 0)).toBe("Tue 3 Nov, 14:00 · calm 1 · joy 0.5");
    expect(bucketText(moodsData(stats), 1)).toBe("Tue 3 Nov, 15:00");
  });

  test("place each bucket at its middle, including the unfinished last one", () => {
    const [x, average, peak] = toAligned(presentData(stats));
    expect(x).toEqual([0.5, 1.5, 2.25].map((hours) => (START + hours * HOUR) / 1000));
    expect([average, peak]).toEqual([[1, 2.5, 0], [2, 4, 0]]);
  });

  test("stack moods with the largest at the bottom, drawn last", () => {
    const data = moodsData(stats);
    expect(data.series.map(({ label }) => label)).toEqual(["calm", "joy"]);
    expect(data.series[1]?.values).toEqual([0.5, 0, 0.5]);
    const [, highest, lowest] = toAligned(data);
    expect([highest, lowest]).toEqual([[1.5, 0, 0.5], [1, 0, 0]]);
  });

  test("divide moods of the last bucket by the time that has passed", () => {
    const moods = { calm: 0.25 * HOUR };
    const data = moodsData({ ...stats, moods, series: [bucket(0, { moods })], to: START + HOUR, generatedAt: START + 0.25 * HOUR });
    expect(data.series.map(({ values }) => values)).toEqual([[1]]);
  });

  test("merge the rarest moods into one band", () => {
    const moods = Object.fromEntries(["a", "b", "c", "d", "e", "f", "g", "h"].map((mood, index) => [mood, HOUR * (9 - index)]));
    const data = moodsData({ ...stats, moods, series: [bucket(0, { moods })], to: START + HOUR });
    expect(data.series.map(({ label }) => label)).toEqual(["a", "b", "c", "d", "e", "f", "others"]);
    expect(data.series.at(-1)?.values).toEqual([3 + 2]);
  });
});

test("page URL is parsed into a stats query, with defaults for invalid parts", () => {
  expect(parseQuery("?range=7d&room=garden")).toEqual({ range: "7d", room: "garden" });
  expect(parseQuery("?range=toString&room=No!")).toEqual({ range: "24h", room: "" });
  expect(parseQuery("")).toEqual({ range: "24h", room: "" });
  expect(statsPath({ range: "30d", room: "garden" }, "Europe/Berlin")).toBe(
    "/unified-stats?range=30d&tz=Europe%2FBerlin&room=garden",
  );
});

test("held visitors are named beside the present ones", () => {
  expect(presentText(1200, 0)).toBe("1,200");
  expect(presentText(12, 2)).toBe("12, 2 held");
});

test("counts of a cluster are lower bounds while a node is silent", () => {
  const text = (cluster?: { nodes: number; silent: number }): string => atLeast(812, cluster) + silentText(cluster);
  expect([text(), text({ nodes: 3, silent: 0 })]).toEqual(["812", "812"]);
  expect(text({ nodes: 2, silent: 1 })).toBe("at least 812, 1 node silent");
  expect(text({ nodes: 1, silent: 2 })).toBe("at least 812, 2 nodes silent");
});

const node: ClusterNode = {
  name: "fra-1",
  isSelf: false,
  state: "silent",
  version: "0.1.0",
  since: START,
  people: 1_200,
  sockets: 1_300,
  heardMs: 4_200,
  lagMs: 3,
  log: { position: 90, lagMs: 6_000, outbox: 12 },
  differs: false,
};

test("node of a cluster is formatted in one row", () => {
  const cells = ["fra-1", "silent", "0.1.0", "3 h", "1,200", "1,300", "4 s ago", "3 ms", "6,000 ms", "12"];
  expect(nodeCells(node, START + 3 * HOUR)).toEqual(cells);
  const own = { ...node, isSelf: true, log: null };
  expect(nodeCells(own, START).slice(6)).toEqual(["this node", "–", "–", "–"]);
});

test("node with another history is named with the command that compares it", () => {
  const other: ClusterNode = { ...node, name: "ams-1", state: "live", differs: true };
  expect(nodeCells(other, START)[1]).toBe("live, other history");
  expect(nodeNotes([node, other], { error: null }, "https://hub.example")).toEqual([
    {
      text: "The history of ams-1 differs from that of this node. To see in which months, run on ams-1:",
      command: "breathing-room check --with https://hub.example",
    },
  ]);
});

test("reason why the log is away is above the nodes", () => {
  expect(nodeNotes([node], null, "https://hub.example")).toEqual([]);
  expect(nodeNotes([node], { error: "the log cannot be reached" }, "https://hub.example")).toEqual([
    { text: "This node does not share events with the others. They wait in its outbox: the log cannot be reached." },
  ]);
});

test("health is formatted in one line", () => {
  const healthy: Health = { status: "ok", pendingPageViews: 0, pendingWatchSessions: 0, lastFlush: START, timestamp: START + 9_000 };
  expect(healthText(healthy)).toBe("The hub is healthy · last saved 9 s ago · nothing pending");
  const degraded: Health = { ...healthy, status: "degraded", pendingPageViews: 3, lastFlush: null, oldestUnflushedMs: 240_000 };
  expect(healthText(degraded)).toBe(
    "The hub is degraded · nothing saved yet · 3 events pending, the oldest for 4 min",
  );
});

test("moods are sorted by count, then by name", () => {
  expect(byCount({ sad: 1, joy: 2, calm: 1, hope: 0 })).toEqual([["joy", 2], ["calm", 1], ["sad", 1]]);
});
