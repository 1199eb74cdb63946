import { beforeEach, describe, expect, test } from "vitest";
import { uuid } from "../src/id.js";
import { createOutbox, type Outbox } from "../src/outbox.js";
import type { Store } from "../src/store.js";

const HUB = "https://hub.example.org/";

class MemoryStore implements Store {
  readonly items = new Map<string, string>();
  keys = (): string[] => [...this.items.keys()];
  get = (key: string): string | null => this.items.get(key) ?? null;
  set = (key: string, text: string): void => void this.items.set(key, text);
  remove = (key: string): void => void this.items.delete(key);
}

let store: MemoryStore;
beforeEach(() => {
  store = new MemoryStore();
});

const open = (owner: string, hub = HUB): Outbox => createOutbox(store, hub, owner);
interface Sent {
  ref: number;
  n?: number;
  state?: string;
  at?: number;
}

/** An event at the time `n`. */
const view = (more: { n?: number; [field: string]: unknown } = {}): string =>
  JSON.stringify({ type: "page-view", room: "lobby", visitor: "ann", at: more.n ?? 1, ...more });

const put = (outbox: Outbox, id: string, text = view()): boolean =>
  outbox.put(JSON.stringify({ ...JSON.parse(text), id }));

/** Returns the messages that are sent now. */
const sendAll = (outbox: Outbox, window = 99): Sent[] => outbox.next(window) as Sent[];

/** Puts an event and sends it, as a room does while it is open. */
function send(outbox: Outbox, id: string, text = view()): Sent {
  put(outbox, id, text);
  return sendAll(outbox).at(-1)!;
}

/** The stored events, without their ids. */
const storedTexts = (): string[] =>
  [...store.items.values()].map((text) => JSON.stringify({ ...JSON.parse(text), id: undefined }));

describe("an event", () => {
  test("is sent with refs that count from 1", () => {
    const outbox = open("a");
    expect([send(outbox, uuid()).ref, send(outbox, uuid()).ref]).toEqual([1, 2]);
  });

  test("is removed at its ack", () => {
    const outbox = open("a");
    for (const id of [uuid(), uuid(), uuid()]) send(outbox, id);
    outbox.ack(2);
    expect(store.items.size).toBe(1);
    outbox.ack(3);
    expect(store.items.size).toBe(0);
    outbox.reset();
    expect(sendAll(outbox)).toEqual([]);
  });

  test("without an ack is sent again on the next socket, with refs from 1", () => {
    const outbox = open("a");
    send(outbox, uuid(1), view({ n: 1 }));
    send(outbox, uuid(2), view({ n: 2 }));
    outbox.ack(1);
    outbox.reset();
    expect(sendAll(outbox)).toMatchObject([{ ref: 1, n: 2 }]);
  });

  test("in flight is not sent twice", () => {
    const outbox = open("a");
    send(outbox, uuid());
    expect(sendAll(outbox)).toEqual([]);
  });

  test("recorded without a socket is sent in order of time", () => {
    const outbox = open("a");
    for (const n of [3, 1, 2]) put(outbox, uuid(n), view({ n }));
    expect(sendAll(outbox).map(({ n }) => n)).toEqual([1, 2, 3]);
  });

  test("rejected for a retry is sent again, although later ones have an ack", () => {
    const outbox = open("a");
    send(outbox, uuid(1), view({ n: 1 }));
    send(outbox, uuid(2), view({ n: 2 }));
    outbox.reject(1, true);
    outbox.ack(2);
    expect(sendAll(outbox)).toMatchObject([{ ref: 3, n: 1 }]);
  });

  test("rejected for good is removed", () => {
    const outbox = open("a");
    send(outbox, uuid());
    outbox.reject(1, false);
    expect(store.items.size).toBe(0);
    expect(sendAll(outbox)).toEqual([]);
  });
});

describe("a later state of the same watch session", () => {
  const id = uuid();
  const watch = (n: number) => JSON.stringify({ type: "watch", room: "lobby", visitor: "ann", at: n, n });

  test("replaces the earlier one", () => {
    const outbox = open("a");
    put(outbox, id, watch(1));
    put(outbox, id, watch(2));
    expect(sendAll(outbox).map(({ n }) => n)).toEqual([2]);
  });

  test("survives the ack of the earlier one", () => {
    const outbox = open("a");
    send(outbox, id, watch(1));
    put(outbox, id, watch(2));
    outbox.ack(1);
    expect(storedTexts()).toEqual([watch(2)]);
    expect(sendAll(outbox)).toMatchObject([{ ref: 2, n: 2 }]);
  });

  test("survives the rejection of the earlier one", () => {
    const outbox = open("a");
    send(outbox, id, watch(1));
    send(outbox, id, watch(2));
    outbox.reject(1, false);
    expect(storedTexts()).toEqual([watch(2)]);
  });
});

describe("limits", () => {
  test("the window limits events in flight", () => {
    const outbox = open("a");
    for (let n = 1; n <= 20; n++) put(outbox, uuid(n), view({ n }));
    expect(sendAll(outbox, 8)).toHaveLength(8);
    expect(sendAll(outbox, 8)).toHaveLength(0);
    outbox.ack(3);
    expect(sendAll(outbox, 8).map(({ n }) => n)).toEqual([9, 10, 11]);
  });

  test("full outbox rejects new events but accepts later states", () => {
    const outbox = open("a");
    const ids = Array.from({ length: 256 }, (_, n) => uuid(n));
    for (const id of ids) expect(put(outbox, id, view())).toBe(true);
    expect(put(outbox, uuid(), view())).toBe(false);
    expect(put(outbox, ids[0]!, view({ n: 2 }))).toBe(true);
    expect(store.items.size).toBe(256);
  });

  test("the store is bounded over all tabs, and events beyond it are still sent", () => {
    for (const owner of ["a", "b", "c"]) {
      const outbox = open(owner);
      for (let n = 0; n < 200; n++) put(outbox, uuid(n), view());
      expect(sendAll(outbox)).toHaveLength(99);
    }
    expect(store.items.size).toBe(256);
  });
});

describe("events of a closed tab", () => {
  const noOwners = new Set<string>();

  test("are recovered, sent and removed at the ack", () => {
    put(open("closed"), uuid(1), view({ n: 1 }));
    const outbox = open("next");
    outbox.recover(noOwners, "lobby", "ann");
    expect(sendAll(outbox)).toMatchObject([{ ref: 1, n: 1 }]);
    outbox.ack(1);
    expect(store.items.size).toBe(0);
  });

  test("are sent before those of the new tab", () => {
    const outbox = open("next");
    put(outbox, uuid(5), view({ n: 5 }));
    put(open("closed"), uuid(4), view({ n: 4 }));
    outbox.recover(noOwners, "lobby", "ann");
    expect(sendAll(outbox).map(({ n }) => n)).toEqual([4, 5]);
  });

  test("are not recovered while the tab is open, or from another hub", () => {
    const other = open("other");
    put(other, uuid(), view());
    put(open("closed", "https://other.example.org/"), uuid(), view());
    const outbox = open("next");
    outbox.recover(new Set([other.owner]), "lobby", "ann");
    expect(sendAll(outbox)).toEqual([]);
  });

  test("may be recovered by two outboxes", () => {
    const id = uuid();
    put(open("closed"), id, view());
    const [one, two] = [open("one"), open("two")];
    for (const outbox of [one, two]) outbox.recover(noOwners, "lobby", "ann");
    expect([sendAll(one), sendAll(two)]).toMatchObject([[{ ref: 1 }], [{ ref: 1 }]]);
    one.ack(1);
    two.ack(1);
    expect(store.items.size).toBe(0);
  });

  test("are paused if they were playing", () => {
    put(open("closed"), uuid(), view({ type: "watch", state: "playing", at: 7 }));
    const outbox = open("next");
    outbox.recover(noOwners, "lobby", "ann");
    expect(sendAll(outbox)).toMatchObject([{ state: "paused", at: 8 }]);
    outbox.ack(1);
    expect(store.items.size).toBe(0);
  });

  test("of another room or visitor are to be posted, not sent", () => {
    put(open("closed"), uuid(1), view({ room: "garden" }));
    put(open("closed"), uuid(2), view({ visitor: "ben" }));
    const outbox = open("next");
    outbox.recover(noOwners, "lobby", "ann");
    expect(outbox.unsent().map(({ event }) => event)).toMatchObject([
      { room: "garden" },
      { visitor: "ben" },
    ]);
    expect(sendAll(outbox)).toEqual([]);
    outbox.unsent().forEach((event) => outbox.remove(event));
    expect(store.items.size).toBe(0);
  });

  test("are removed if they are not JSON", () => {
    const { owner } = open("closed");
    store.set(`${owner}:${uuid()}`, "{");
    const outbox = open("next");
    outbox.recover(noOwners, "lobby", "ann");
    expect(outbox.unsent()).toEqual([]);
    expect(store.items.size).toBe(0);
  });
});

test("times are stored by the device's clock, and sent by the hub's", () => {
  const outbox = open("a");
  outbox.behind = -600_000;
  put(outbox, uuid(), view({ at: 1_000_000, startedAt: 900_000 }));
  expect(JSON.parse([...store.items.values()][0]!)).toMatchObject({ at: 1_000_000, startedAt: 900_000 });
  expect(JSON.parse(outbox.toBody(outbox.unsent()))).toMatchObject([{ at: 400_000, startedAt: 300_000 }]);
  expect(sendAll(outbox)).toMatchObject([{ at: 400_000, startedAt: 300_000 }]);
});

test("event committed over HTTP is removed, unless a later state replaced it", () => {
  const outbox = open("a");
  const id = uuid();
  put(outbox, id, view({ n: 1 }));
  const posted = outbox.unsent()[0]!;
  put(outbox, id, view({ n: 2 }));
  outbox.remove(posted);
  expect(store.items.size).toBe(1);
  expect(sendAll(outbox)).toMatchObject([{ n: 2 }]);
});

test("without a working store, events stay in memory", () => {
  const nothing: Store = { keys: () => [], get: () => null, set: () => {}, remove: () => {} };
  const outbox = createOutbox(nothing, HUB, "a");
  put(outbox, uuid(), view({ n: 1 }));
  expect(sendAll(outbox)).toMatchObject([{ n: 1 }]);
  outbox.reset();
  expect(sendAll(outbox)).toMatchObject([{ n: 1 }]);
  outbox.ack(1);
  outbox.reset();
  expect(sendAll(outbox)).toEqual([]);
});
