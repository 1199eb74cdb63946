// @vitest-environment happy-dom

import { describe, expect, test, vi } from "vitest";
import {
  captureTimers,
  enter,
  errorsOf,
  hub,
  join,
  jwt,
  nextError,
  stored,
  useHub,
  waitForState,
} from "./support.js";
import { TestHub } from "./test-hub.js";

useHub();

const isUpgrade = (headers: Record<string, unknown>): boolean => headers.upgrade === "websocket";

/** Refuses sockets without a good token. */
function requireToken(...good: string[]): void {
  const message = "the token is missing or bad";
  hub.refuse = (headers) => {
    const offered = isUpgrade(headers) ? headers["sec-websocket-protocol"] : headers.authorization;
    return good.some((token) => offered?.includes(token)) ? undefined : { status: 401, code: "unauthorized", message };
  };
}

describe("a refused upgrade", () => {
  test("with 403 is an error with the hub's reason, and the end", async () => {
    hub.refuse = () => ({ status: 403, code: "forbidden-origin", message: "the page's origin is not allowed" });
    const room = join({ token: "a.b.c" });
    expect(await nextError(room)).toEqual({
      code: "forbidden-origin",
      message: "the page's origin is not allowed",
      status: 403,
    });
    expect(room.state).toBe("closed");
    for (const type of ["online", "offline"]) dispatchEvent(new Event(type));
    expect(room.state).toBe("closed");
    // The token is not sent to a hub that refuses the page.
    expect(hub.requests.map((headers) => [isUpgrade(headers), headers.authorization])).toEqual([
      [true, undefined],
      [false, undefined],
    ]);
  });

  test("of this visitor is an error with the hub's reason: the question names the visitor, and not in the URL", async () => {
    hub.refuse = (headers) =>
      isUpgrade(headers) || headers.visitor === "ann" ? { status: 429, code: "too-many-rooms", message: "rooms" } : undefined;
    const room = join();
    expect(await nextError(room)).toEqual({ code: "too-many-rooms", message: "rooms", status: 429 });
    expect(room.state).toBe("waiting");
    // The first question has no header that the browser must ask the hub for.
    const asked = hub.requests.filter((headers) => !isUpgrade(headers));
    expect(asked.map(({ visitor }) => visitor)).toEqual([undefined, "ann"]);
  });

  test("with 401 is the end for this token, until a new one is given", async () => {
    requireToken("good");
    const room = join({ token: "bad" });
    expect(await nextError(room)).toMatchObject({ code: "unauthorized", status: 401 });
    expect(room.state).toBe("closed");
    expect(hub.requests.at(-1)!.authorization).toBe("Bearer bad");
    room.setToken("good");
    const session = await hub.session(1);
    session.welcome();
    await waitForState(room, "open");
    expect(session.protocols).toContain("bearer.good");
  });

  test("with 401 asks a token function again, and connects with another token only", async () => {
    requireToken("good");
    const timers = captureTimers(2_400);
    const tokens = ["bad", "bad", "good", "good"];
    let asked = 0;
    const room = join({ token: () => tokens[asked++]! });
    await nextError(room);
    expect([asked, room.state]).toEqual([1, "closed"]);
    expect(timers.last!.wait).toBeLessThanOrEqual(5_000);
    timers.last!.fire();
    await vi.waitFor(() => expect(timers.last!.wait).toBeGreaterThan(5_000 / 2));
    expect([asked, room.state]).toEqual([2, "closed"]);
    timers.last!.fire();
    (await hub.session(1)).welcome();
    await waitForState(room, "open");
  });

  test("is the end if the page leaves then, with a token function too", async () => {
    requireToken("good");
    const timers = captureTimers(2_400);
    let asked = 0;
    const room = join({ token: () => (asked++, "bad") });
    room.addEventListener("error", () => room.leave());
    await nextError(room);
    expect([asked, room.state, timers.last]).toEqual([1, "closed", undefined]);
  });

  test("of a token function that returned nothing once is not the end", async () => {
    requireToken("good");
    const timers = captureTimers(2_400);
    let asked = 0;
    const room = join({ token: () => (asked++ ? "good" : null) });
    expect(await nextError(room)).toMatchObject({ code: "unauthorized" });
    timers.last!.fire();
    (await hub.session(1)).welcome();
    await waitForState(room, "open");
  });

  test.each([429, 503])("with %i is tried again when the hub says", async (status) => {
    const timers = captureTimers(2_400);
    let refused = 0;
    hub.refuse = () =>
      refused++ < 2 ? { status, code: "full", message: "try again", headers: { "retry-after": "60" } } : undefined;
    const room = join();
    expect(await nextError(room)).toEqual({ code: "full", message: "try again", status });
    expect(room.state).toBe("waiting");
    expect(timers.last!.wait).toBeGreaterThan(59_000);
    dispatchEvent(new Event("online")); // not before the hub says
    expect(room.state).toBe("waiting");
    timers.last!.fire();
    (await hub.session(1)).welcome();
    await waitForState(room, "open");
  });

  test("that the hub would accept now is no error", async () => {
    let refused = 0;
    hub.refuse = () => (refused++ ? undefined : { status: 500 });
    const room = join();
    const errors = errorsOf(room);
    (await hub.session(1)).welcome();
    await waitForState(room, "open");
    expect(errors).toEqual([]);
  });

  test("with 403 by something that is not a hub is not the end", async () => {
    hub.refuse = () => ({ status: 403, code: "" }); // no code of the hub
    const room = join();
    expect(await nextError(room)).toMatchObject({ status: 403 });
    expect(room.state).toBe("waiting");
    hub.refuse = () => undefined;
    dispatchEvent(new Event("online"));
    (await hub.session(1)).welcome();
    await waitForState(room, "open");
  });

  test("by something that is not a hub is an error", async () => {
    const timers = captureTimers(2_400);
    vi.spyOn(Math, "random").mockReturnValue(0);
    hub.refuse = () => ({ status: 404, code: "not-found", message: "nothing here" });
    const room = join();
    expect(await nextError(room)).toMatchObject({ code: "not-found", status: 404 });
    expect(room.state).toBe("waiting");
    expect(timers.last).toBeUndefined();
  });
});

describe("a close with 1008", () => {
  test("for the token's end reconnects with a new token", async () => {
    const tokens = [jwt(20, 1), jwt(20, 2)];
    let asked = 0;
    const [room, session] = await enter({ token: () => tokens[asked++]! });
    session.socket.close(1008, "token-expired");
    const back = await hub.session(2);
    back.welcome();
    await waitForState(room, "open");
    expect(back.protocols).toContain(`bearer.${tokens[1]}`);
  });

  test("for the end of a token that cannot be renewed is an error, until a new one is given", async () => {
    const [room, session] = await enter({ token: jwt(1) });
    session.socket.close(1008, "token-expired");
    expect((await nextError(room)).code).toBe("token-expired");
    expect(room.state).toBe("closed");
    room.setToken(jwt(3_600, 2));
    (await hub.session(2)).welcome();
    await waitForState(room, "open");
  });

  test("for another reason is an error, and the end", async () => {
    const [room, session] = await enter({ token: () => jwt(3_600) });
    session.socket.close(1008, "rate-limit");
    expect((await nextError(room)).code).toBe("rate-limit");
    expect(room.state).toBe("closed");
  });
});

describe("a token", () => {
  test("is renewed in time if the device's clock is 100 s slow", async () => {
    const timers = captureTimers(2_400);
    await enter({ token: () => jwt(165) }, { serverTime: Date.now() + 100_000 });
    expect(timers.last!.wait).toBeLessThan(40_000);
  });

  test("is not renewed too often if the device's clock is one hour fast", async () => {
    const timers = captureTimers(2_400);
    await enter({ token: () => jwt(0) }, { serverTime: Date.now() - 3_600_000 });
    expect(timers.last!.wait).toBeGreaterThan(3_500_000);
  });

  test("function that is slow delays the connection, and is asked once", async () => {
    let give!: (token: string) => void;
    let asked = 0;
    const room = join({ token: () => (asked++, new Promise((resolve) => (give = resolve))) });
    for (let n = 0; n < 3; n++) dispatchEvent(new Event("online"));
    expect(room.state).toBe("connecting");
    give("late");
    (await hub.session(1)).welcome();
    await waitForState(room, "open");
    expect([asked, hub.sessions.length]).toEqual([1, 1]);
  });

  test("that arrives after a reconnect does not replace the newer one", async () => {
    const timers = captureTimers(2_400);
    const give: ((token: string) => void)[] = [];
    const room = join({ token: () => new Promise((resolve) => give.push(resolve)) });
    const asked = (count: number) => vi.waitFor(() => expect(give).toHaveLength(count));
    await asked(1);
    give[0]!(jwt(30, 1));
    const session = await hub.session(1);
    session.welcome();
    await waitForState(room, "open");
    timers.last!.fire();
    await asked(2);
    session.socket.terminate();
    await asked(3);
    give[2]!(jwt(30, 3));
    const back = await hub.session(2);
    back.welcome();
    await waitForState(room, "open");
    give[1]!(jwt(30, 2));
    room.setMood("joy");
    expect(await back.receive(1)).toEqual([{ type: "mood", mood: "joy" }]);
    expect([room.state, hub.sessions.length]).toEqual(["open", 2]);
  });

  test("given later is sent on the open socket", async () => {
    const [room, session] = await enter({ token: "first" });
    room.setToken(() => "second");
    expect(await session.receive(1)).toEqual([{ type: "token", token: "second" }]);
  });
});

describe("posted events", () => {
  /** Records an event of another room, as a page that is gone. */
  function recordIn(room: string, path: string): void {
    const before = join({ room });
    before.pageView(path);
    before.leave();
  }

  const paths = () => stored().map(({ path }) => path);

  test("that the hub refuses are dropped with an error, and the others arrive", async () => {
    for (const room of ["a", "b", "c"]) recordIn(room, `/${room}`);
    hub.refusePost = ([{ room }]) =>
      room === "a" ? { status: 400, code: "bad-field", message: "[0]: at: is too old" } : undefined;
    const [room] = [join()];
    const errors = errorsOf(room);
    (await hub.session(1)).welcome();
    await vi.waitFor(() => expect(stored()).toEqual([]));
    expect(hub.posts).toHaveLength(3);
    expect(errors).toEqual([{ code: "bad-field", message: "[0]: at: is too old", status: 400 }]);
  });

  test("of one room do not lose those next to a refused one", async () => {
    for (let n = 0; n < 7; n++) recordIn("garden", `/${n}`);
    const accepted: string[] = [];
    hub.refusePost = (events) => {
      if (events.some(({ path }) => path === "/3")) return { status: 400, code: "bad-field", message: "path" };
      accepted.push(...events.map(({ path }) => path));
      return undefined;
    };
    const room = join();
    const errors = errorsOf(room);
    (await hub.session(1)).welcome();
    await vi.waitFor(() => expect(stored()).toEqual([]));
    expect(accepted.sort()).toEqual(["/0", "/1", "/2", "/4", "/5", "/6"]);
    expect(errors).toHaveLength(1);
  });

  test("over the hub's limits are posted in parts", async () => {
    const before = join({ room: "garden" });
    for (let n = 0; n < 150; n++) before.pageView(`/${n}`);
    before.leave();
    hub.refusePost = (events) =>
      events.length > 100 ? { status: 400, code: "bad-field", message: "array: must have at most 100 events" } : undefined;
    const room = join();
    const errors = errorsOf(room);
    (await hub.session(1)).welcome();
    await vi.waitFor(() => expect(stored()).toEqual([]), 5_000);
    expect(errors).toEqual([]);
  });

  test("that this token may not send stay for a page that may", async () => {
    for (const room of ["a", "b"]) recordIn(room, `/${room}`);
    hub.refusePost = ([{ room }]) => (room === "a" ? { status: 401 } : undefined);
    const room = join({ token: "a.b.c" });
    const errors = errorsOf(room);
    (await hub.session(1)).welcome();
    await vi.waitFor(() => expect(paths()).toEqual(["/a"]));
    expect(errors).toEqual([]);
  });

  test("that the hub cannot take now are posted again when it says", async () => {
    const timers = captureTimers(2_400);
    recordIn("garden", "/a");
    hub.refusePost = () => (hub.posts.length ? undefined : { status: 503, headers: { "retry-after": "10" } });
    join();
    (await hub.session(1)).welcome();
    await vi.waitFor(() => expect(timers.last!.wait).toBeGreaterThan(9_000));
    expect(paths()).toEqual(["/a"]);
    timers.last!.fire();
    await vi.waitFor(() => expect(stored()).toEqual([]));
  });
});

describe("several addresses", () => {
  test("the next one is tried after a failed attempt, and the one that works stays", async () => {
    const [down, other] = [await TestHub.open(), await TestHub.open()];
    const address = down.address;
    await down.close();
    const room = join({ hub: [address, other.address] });
    const session = await other.session(1);
    session.welcome();
    await waitForState(room, "open");
    session.socket.terminate();
    const back = await other.session(2);
    back.welcome();
    await waitForState(room, "open");
    room.leave();
    await other.close();
  });

  test("the next one is tried although the first asks to wait", async () => {
    const other = await TestHub.open();
    hub.refuse = () => ({ status: 503, code: "full", headers: { "retry-after": "600" } });
    const room = join({ hub: [hub.address, other.address] });
    (await other.session(1)).welcome();
    await waitForState(room, "open");
    room.leave();
    await other.close();
  });

  test("the next one is tried after a refusal, and the state is closed after that of each", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const other = await TestHub.open();
    hub.refuse = () => ({ status: 401, code: "unauthorized" });
    const room = join({ hub: [hub.address, other.address] });
    const session = await other.session(1);
    session.welcome();
    await waitForState(room, "open");
    other.refuse = () => ({ status: 403, code: "forbidden-origin" });
    const errors = errorsOf(room);
    session.socket.terminate();
    await waitForState(room, "closed");
    expect(errors.map(({ status }) => status)).toEqual([403, 401]);
    room.leave();
    await other.close();
  });

  test("an address without a scheme is a clear error", () => {
    for (const address of ["hub.example.org", "hub.example.org/path", "localhost:8080", "", "ftp://hub.example.org"]) {
      expect(() => join({ hub: address })).toThrow(`bad hub: ${address}`);
    }
    expect(() => join({ hub: ["https://hub.example.org", "hub.example.org"] })).toThrow("bad hub");
  });

  test("an address may be a path of the page's origin, or have the scheme of a socket", () => {
    for (const address of ["/", "/hub", "ws://127.0.0.1:9", "HTTPS://127.0.0.1:9"]) join({ hub: address }).leave();
  });
});
