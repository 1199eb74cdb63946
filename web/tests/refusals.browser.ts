// Visitors whom the hub refuses: the room page says why, and who can help.

import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { User, launch } from "./support/user";
import { eventually } from "./support/eventually";
import { Hub } from "./support/hub";
import { RoomPage } from "./support/room-page";
import { EmbeddingSite } from "./support/embedding-site";
import { Phone } from "./support/phone";
import { SECRET, tokenFor } from "./support/token";

/** A browser logs each refused request. */
const REFUSED = /WebSocket connection to .* failed|the server responded with a status of/;

let browser: Browser;
let hub: Hub;
/** What a test leaves behind, even if it fails. */
let rest: (() => unknown)[] = [];

beforeAll(async () => {
  browser = await launch();
});
afterAll(() => browser.close());
afterEach(async () => {
  for (const close of rest) await close();
  rest = [];
  await hub.dispose();
});

async function startSite(): Promise<EmbeddingSite> {
  const site = await EmbeddingSite.start(hub.url);
  rest.push(() => site.close());
  return site;
}

/** Runs `body` with a new user, and closes the user. */
async function withUser(body: (user: User) => Promise<void>): Promise<void> {
  const user = await User.create(browser);
  await body(user);
  await user.close(REFUSED);
}

test("hub that requires tokens: a personal link joins, and its token is kept for the tab but not in the address", async () => {
  hub = await Hub.start({ TOKEN_SECRET: SECRET });
  await withUser(async (ann) => {
    const room = `${hub.url}/room/lobby`;
    const annPage = await RoomPage.visit(ann, `${room}?utm_source=letter#token=${tokenFor("ann", 600)}`);
    await annPage.expectState("You are here.");
    expect(annPage.page.url()).toBe(`${room}?utm_source=letter`);
    await annPage.page.reload();
    await annPage.expectState("You are here.");
    const other = await RoomPage.visit(ann, room);
    await other.expectState("This room opens with a personal link only. Ask your host for one.");
    await other.expectPresent("–");
  });
});

test("hub that requires tokens: a link that has ended is refused, and a new one in the same tab joins", async () => {
  hub = await Hub.start({ TOKEN_SECRET: SECRET });
  await withUser(async (ann) => {
    const room = `${hub.url}/room/lobby`;
    const annPage = await RoomPage.visit(ann, `${room}#token=${tokenFor("ann", -60, 600)}`);
    await annPage.expectState("The hub does not accept your link any more. Ask your host for a new one.");
    await annPage.page.goto(`${room}#token=${tokenFor("ann", 600)}`);
    await annPage.expectState("You are here.");
    expect(annPage.page.url()).toBe(room);
  });
});

test("origin that is not allowed: the page names the setting", async () => {
  hub = await Hub.start({ ALLOWED_ORIGINS: "https://example.org" });
  await withUser(async (ann) => {
    const annPage = await RoomPage.visit(ann, `${hub.url}/room/lobby`);
    await annPage.expectState("This hub does not accept visitors from this address. Its operator can allow it in ALLOWED_ORIGINS.");
  });
});

/** Runs in the page. The client waits up to twice as long as the hub asks: without chance just as long. */
function withoutJitter(): void {
  Math.random = () => 0;
}

test("full hub: the page says so, and joins when there is space", async () => {
  hub = await Hub.start({ LEAVE_GRACE: "0s", MAX_CONNECTIONS: "1" });
  await withUser(async (ann) => {
    await ann.context.addInitScript(withoutJitter);
    const first = await RoomPage.open(ann, hub.url, "garden");
    const second = await RoomPage.visit(ann, `${hub.url}/room/lobby`);
    await second.expectState("The hub is full. Trying again in a while…");
    await first.page.close();
    await second.expectState("You are here.");
  });
});

test("visitor in too many rooms: the page says what to do", async () => {
  hub = await Hub.start({ VISITOR_ROOMS: "1" });
  await withUser(async (ann) => {
    await RoomPage.open(ann, hub.url, "garden");
    const second = await RoomPage.visit(ann, `${hub.url}/room/lobby`);
    await second.expectState("You are in too many rooms at once: close another one.");
  });
});

test("too many attempts from one address: the page says so, and joins afterwards", async () => {
  hub = await Hub.start({ ADDRESS_SOCKET_RATE: "1" });
  await withUser(async (ann) => {
    await ann.context.addInitScript(withoutJitter);
    let flooding = true;
    const flood = (async () => {
      while (flooding) await fetch(`${hub.url}/rooms/lobby/socket`).then((response) => response.text());
    })();
    const annPage = await RoomPage.visit(ann, `${hub.url}/room/lobby`);
    // One request a second is allowed, and seldom it is the page's.
    await eventually(async () => {
      await annPage.page.reload();
      await annPage.expectState("Too many attempts from your network. Trying again in a while…", 3_000);
    });
    flooding = false;
    await flood;
    await annPage.expectState("You are here.");
  });
});

test("room addresses that mean a room lead to it; others get a page that says what a name may be", async () => {
  hub = await Hub.start();
  await withUser(async (ann) => {
    for (const path of ["/room/Lobby", "/room/lobby/", "/room/LOBBY/?utm_source=x"]) {
      const annPage = await RoomPage.visit(ann, hub.url + path);
      await annPage.expectState("You are here.");
      expect(new URL(annPage.page.url()).pathname).toBe("/room/lobby");
    }
    const spaced = await RoomPage.visit(ann, `${hub.url}/room/my room`);
    await spaced.expectState("You are here.");
    expect(new URL(spaced.page.url()).pathname).toBe("/room/my-room");
    const bad = await ann.open(`${hub.url}/room/--`);
    await bad.getByText("The name of a room has letters from a to z, digits and hyphens.").waitFor();
    expect(await bad.title()).toBe("This address is not right");
  });
});

test("token that ends while the page is frozen: the page is back with a new one", async () => {
  hub = await Hub.start({ TOKEN_SECRET: SECRET, LEAVE_GRACE: "0s" });
  const site = await startSite();
  const phone = await Phone.start();
  rest.push(() => phone.close());
  const page = await phone.user.open(`${site.url}/plain`);
  // The first token lives 33 s by its claims, but the hub closes the socket after 3 s.
  await page.evaluate((hub) => {
    let calls = 0;
    const token = async (): Promise<string> => {
      const claims = calls++ === 0 ? "seconds=-27&age=60" : "seconds=600&age=0";
      return await (await fetch(`/token?visitor=ann&${claims}`)).text();
    };
    Object.assign(window, { joined: BreathingRoom.joinRoom({ hub, room: "lobby", visitor: "ann", token }) });
  }, hub.url);
  await page.waitForFunction(() => (window as unknown as { joined: { state: string } }).joined.state === "open");
  await phone.lock(page);
  const present = (): Promise<unknown> => hub.get("/rooms/lobby");
  await expect.poll(present, { timeout: 20_000 }).toMatchObject({ present: 0 });
  // One that is made now ends later than the page's.
  const authorization = `Bearer ${tokenFor("ann", -27, 60)}`;
  const ask = async (): Promise<number> =>
    (await fetch(`${hub.url}/rooms/lobby/socket`, { headers: { authorization } })).status;
  await expect.poll(ask, { timeout: 20_000 }).toBe(401);
  await phone.unlock(page);
  await expect.poll(present, { timeout: 20_000 }).toMatchObject({ present: 1 });
});

test("slow token function, which first returns null: it is asked again, and the page joins", async () => {
  hub = await Hub.start({ TOKEN_SECRET: SECRET });
  const site = await startSite();
  await withUser(async (ann) => {
    const page = await ann.open(`${site.url}/plain`);
    const codes = await page.evaluate(
      (hub) =>
        new Promise<unknown[]>((resolve) => {
          const errors: unknown[] = [];
          let calls = 0;
          const token = async (): Promise<string | null> => {
            if (calls++ === 0) return null;
            await new Promise((done) => setTimeout(done, 1_500));
            return await (await fetch("/token?visitor=ann&seconds=600")).text();
          };
          const room = BreathingRoom.joinRoom({ hub, room: "lobby", visitor: "ann", token });
          room.addEventListener("error", (event) => errors.push((event as CustomEvent<{ code: string }>).detail.code));
          room.addEventListener("state", () => room.state === "open" && resolve(errors));
        }),
      hub.url,
    );
    expect(codes).toEqual(["unauthorized"]);
  });
});
