import { beforeEach, describe, expect, test } from "vitest";
import { uuid } from "../src/id.js";
import { Outbox } from "../src/outbox.js";
import type { Store } from "../src/store.js";

const HUB = "https://hub.example.org/";

class Shelf implements Store {
  readonly kept = new Map<string, string>();
  keys = (): string[] => [...this.kept.keys()];
  get = (key: string): string | null => this.kept.get(key) ?? null;
  set = (key: string, text: string): void => void this.kept.set(key, text);
  remove = (key: string): void => void this.kept.delete(key);
}

let shelf: Shelf;
beforeEach(() => {
  shelf = new Shelf();
});

const open = (owner: string, hub = HUB): Outbox => new Outbox(shelf, hub, owner);
const view = (more: object = {}): string =>
  JSON.stringify({ type: "page-view", room: "lobby", visitor: "ann", at: 1, ...more });

/** Puts an event and sends it, as an open room does. */
function send(outbox: Outbox, id: string, text = view()): { ref: number; id?: string } {
  return JSON.parse(outbox.message(outbox.put(id, text)!));
}

/** Sends what waits, and returns what was sent. */
function sendAll(outbox: Outbox, most = 99): { ref: number; n?: number; state?: string; at?: number }[] {
  return outbox.next(most).map((entry) => JSON.parse(outbox.message(entry)));
}

describe("an event", () => {
  test("is sent with a ref that rises from 1", () => {
    const outbox = open("a");
    expect([send(outbox, uuid()).ref, send(outbox, uuid()).ref]).toEqual([1, 2]);
  });

  test("is kept until it is acked, and not longer", () => {
    const outbox = open("a");
    for (const id of [uuid(), uuid(), uuid()]) send(outbox, id);
    outbox.acked(2);
    expect(shelf.kept.size).toBe(1);
    outbox.acked(3);
    expect(shelf.kept.size).toBe(0);
    outbox.lost();
    expect(sendAll(outbox)).toEqual([]);
  });

  test("that was not acked is sent again on the next socket, which counts from 1", () => {
    const outbox = open("a");
    send(outbox, uuid(1), view({ n: 1 }));
    send(outbox, uuid(2), view({ n: 2 }));
    outbox.acked(1);
    outbox.lost();
    expect(sendAll(outbox)).toMatchObject([{ ref: 1, n: 2 }]);
  });

  test("that is on its way is not sent twice", () => {
    const outbox = open("a");
    send(outbox, uuid());
    expect(sendAll(outbox)).toEqual([]);
  });

  test("made while there is no socket is sent in the order of time", () => {
    const outbox = open("a");
    for (const n of [3, 1, 2]) outbox.put(uuid(n), view({ n }));
    expect(sendAll(outbox).map(({ n }) => n)).toEqual([1, 2, 3]);
  });

  test("that the hub cannot take now is sent again, though later ones are acked", () => {
    const outbox = open("a");
    send(outbox, uuid(1), view({ n: 1 }));
    send(outbox, uuid(2), view({ n: 2 }));
    outbox.refused(1, true);
    outbox.acked(2);
    expect(sendAll(outbox)).toMatchObject([{ ref: 3, n: 1 }]);
  });

  test("that the hub will never take is dropped", () => {
    const outbox = open("a");
    send(outbox, uuid());
    outbox.refused(1, false);
    expect(shelf.kept.size).toBe(0);
    expect(sendAll(outbox)).toEqual([]);
  });
});

describe("a later state of the same watch session", () => {
  const id = uuid();
  const watch = (n: number) => JSON.stringify({ type: "watch", room: "lobby", visitor: "ann", at: n, n });

  test("takes the place of the earlier one", () => {
    const outbox = open("a");
    outbox.put(id, watch(1));
    outbox.put(id, watch(2));
    expect(sendAll(outbox).map(({ n }) => n)).toEqual([2]);
  });

  test("survives the ack of the earlier one", () => {
    const outbox = open("a");
    send(outbox, id, watch(1));
    outbox.put(id, watch(2));
    outbox.acked(1);
    expect([...shelf.kept.values()]).toEqual([watch(2)]);
    expect(sendAll(outbox)).toMatchObject([{ ref: 2, n: 2 }]);
  });

  test("survives the refusal of the earlier one", () => {
    const outbox = open("a");
    send(outbox, id, watch(1));
    send(outbox, id, watch(2));
    outbox.refused(1, false);
    expect([...shelf.kept.values()]).toEqual([watch(2)]);
  });
});

describe("bounds", () => {
  test("no more than so many events are on their way at once", () => {
    const outbox = open("a");
    for (let n = 1; n <= 20; n++) outbox.put(uuid(n), view({ n }));
    expect(sendAll(outbox, 8)).toHaveLength(8);
    expect(sendAll(outbox, 8)).toHaveLength(0);
    outbox.acked(3);
    expect(sendAll(outbox, 8).map(({ n }) => n)).toEqual([9, 10, 11]);
  });

  test("a full outbox says so, and still takes later states", () => {
    const outbox = open("a");
    const ids = Array.from({ length: 256 }, (_, n) => uuid(n));
    for (const id of ids) expect(outbox.put(id, view())).toBeDefined();
    expect(outbox.put(uuid(), view())).toBeUndefined();
    expect(outbox.put(ids[0]!, view({ n: 2 }))).toBeDefined();
    expect(shelf.kept.size).toBe(256);
  });

  test("many tabs together do not fill the store either; what it does not take is still sent", () => {
    for (const owner of ["a", "b", "c"]) {
      const outbox = open(owner);
      for (let n = 0; n < 200; n++) outbox.put(uuid(n), view());
      expect(sendAll(outbox)).toHaveLength(99);
    }
    expect(shelf.kept.size).toBe(256);
  });
});

describe("what a dead tab has left", () => {
  const alive = new Set<string>();

  test("is adopted, sent and, once acked, gone", () => {
    open("dead").put(uuid(1), view({ n: 1 }));
    const outbox = open("next");
    expect(outbox.adopt(alive, "lobby", "ann")).toEqual([]);
    expect(sendAll(outbox)).toMatchObject([{ ref: 1, n: 1 }]);
    outbox.acked(1);
    expect(shelf.kept.size).toBe(0);
  });

  test("goes before what the new tab says, so that the newest page comes last", () => {
    const outbox = open("next");
    outbox.put(uuid(5), view({ n: 5 }));
    open("dead").put(uuid(4), view({ n: 4 }));
    outbox.adopt(alive, "lobby", "ann");
    expect(sendAll(outbox).map(({ n }) => n)).toEqual([4, 5]);
  });

  test("is left alone while its tab is alive, or belongs to another hub", () => {
    const living = open("living");
    living.put(uuid(), view());
    open("dead", "https://other.example.org/").put(uuid(), view());
    const outbox = open("next");
    outbox.adopt(new Set([living.owner]), "lobby", "ann");
    expect(sendAll(outbox)).toEqual([]);
  });

  test("may be adopted by two, and counts once", () => {
    const id = uuid();
    open("dead").put(id, view());
    const [one, two] = [open("one"), open("two")];
    for (const outbox of [one, two]) outbox.adopt(alive, "lobby", "ann");
    expect([sendAll(one), sendAll(two)]).toMatchObject([[{ ref: 1 }], [{ ref: 1 }]]);
    one.acked(1);
    two.acked(1);
    expect(shelf.kept.size).toBe(0);
  });

  test("plays no longer", () => {
    open("dead").put(uuid(), view({ type: "watch", state: "playing", at: 7 }));
    const outbox = open("next");
    outbox.adopt(alive, "lobby", "ann");
    expect(sendAll(outbox)).toMatchObject([{ state: "paused", at: 8 }]);
    outbox.acked(1);
    expect(shelf.kept.size).toBe(0);
  });

  test("in another room, or by another visitor, is not this socket's to say", () => {
    open("dead").put(uuid(1), view({ room: "garden" }));
    open("dead").put(uuid(2), view({ visitor: "ben" }));
    const outbox = open("next");
    const others = outbox.adopt(alive, "lobby", "ann");
    expect(others.map(({ text }) => JSON.parse(text))).toMatchObject([
      { room: "garden" },
      { visitor: "ben" },
    ]);
    expect(sendAll(outbox)).toEqual([]);
    others.forEach((event) => outbox.forget(event));
    expect(shelf.kept.size).toBe(0);
  });

  test("is dropped where it is not JSON", () => {
    const dead = open("dead");
    dead.put(uuid(), "{");
    expect(open("next").adopt(alive, "lobby", "ann")).toEqual([]);
    expect(shelf.kept.size).toBe(0);
  });
});

test("what was committed otherwise is forgotten, but not what has taken its place", () => {
  const outbox = open("a");
  const id = uuid();
  outbox.put(id, view({ n: 1 }));
  const posted = outbox.next(1)[0]!;
  outbox.put(id, view({ n: 2 }));
  outbox.forget(posted);
  expect(shelf.kept.size).toBe(1);
  expect(sendAll(outbox)).toMatchObject([{ n: 2 }]);
});

test("a store that keeps nothing loses nothing while the page lives", () => {
  const nothing: Store = { keys: () => [], get: () => null, set: () => {}, remove: () => {} };
  const outbox = new Outbox(nothing, HUB, "a");
  outbox.put(uuid(), view({ n: 1 }));
  expect(sendAll(outbox)).toMatchObject([{ n: 1 }]);
  outbox.lost();
  expect(sendAll(outbox)).toMatchObject([{ n: 1 }]);
  outbox.acked(1);
  outbox.lost();
  expect(sendAll(outbox)).toEqual([]);
});
