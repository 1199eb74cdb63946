// A site on another origin than the hub, which embeds a room with the script tag, and signs tokens for its visitors.

import { once } from "node:events";
import { type Server, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Page } from "playwright-core";
import { tokenFor } from "./token";
import type { User } from "./user";

interface Watch {
  attach(media: HTMLMediaElement): () => void;
}

interface Room extends EventTarget {
  state: string;
  present: number;
  pageView(path: string): void;
  watch(content: string): Watch;
}

declare global {
  /** The global of the script-tag build. */
  const BreathingRoom: {
    room: Room;
    joinRoom(options: {
      hub: string;
      room: string;
      visitor?: string;
      token?: () => Promise<string | null>;
      idleAfter?: number;
    }): Room;
  };
}

/** Returns a quiet tone as a WAV file: 8 kHz, 8 bit, mono. */
export function tone(seconds: number): Buffer {
  const rate = 8_000;
  const samples = Buffer.alloc(rate * seconds, 0).map((_, n) => 128 + Math.round(8 * Math.sin(n / 3)));
  const header = Buffer.alloc(44);
  header.write("RIFF", 0);
  header.writeUInt32LE(36 + samples.length, 4);
  header.write("WAVEfmt ", 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(rate, 24);
  header.writeUInt32LE(rate, 28);
  header.writeUInt16LE(1, 32);
  header.writeUInt16LE(8, 34);
  header.write("data", 36);
  header.writeUInt32LE(samples.length, 40);
  return Buffer.concat([header, Buffer.from(samples)]);
}

export class EmbeddingSite {
  readonly #server: Server;

  private constructor(hub: string) {
    const embedding = `<!doctype html><html lang="en"><title>A site</title><link rel="icon" href="data:,">
      <script src="${hub}/client/breathing-room.js" data-room="lobby"></script>
      <p><span data-breathing-room="present"></span> people, <span data-breathing-room="state"></span></p>
      <audio src="/tone.wav" preload="auto"></audio>`;
    // A page that joins no room by itself.
    const plain = `<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,">
      <script src="${hub}/client/breathing-room.js"></script>`;
    const elsewhere = `<!doctype html><html lang="en"><title>Elsewhere</title><link rel="icon" href="data:,"><p>Elsewhere`;
    this.#server = createServer((request, response) => {
      if (request.url === "/tone.wav") {
        response.writeHead(200, { "content-type": "audio/wav" }).end(tone(3));
      } else if (request.url?.startsWith("/token?")) {
        const params = new URL(request.url, "http://site").searchParams;
        const [seconds, age] = [Number(params.get("seconds")), Number(params.get("age"))];
        response.end(tokenFor(params.get("visitor")!, seconds, age));
      } else {
        const pages: Record<string, string> = { "/elsewhere": elsewhere, "/plain": plain };
        response.writeHead(200, { "content-type": "text/html" });
        response.end(pages[request.url ?? ""] ?? embedding);
      }
    });
  }

  /** Starts a site whose pages join the lobby of this hub. */
  static async start(hub: string): Promise<EmbeddingSite> {
    const site = new EmbeddingSite(hub);
    await once(site.#server.listen(0, "127.0.0.1"), "listening");
    return site;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** Opens the page and waits until it has joined the room. */
  async visit(user: User): Promise<Page> {
    const page = await user.open(`${this.url}/`);
    await page.waitForFunction(() => BreathingRoom.room.state === "open");
    return page;
  }
}

/** Records a page view in the page. */
export function pageView(page: Page, path: string): Promise<void> {
  return page.evaluate((path) => BreathingRoom.room.pageView(path), path);
}

/** Waits until the embedded room shows this count. */
export async function expectPresent(page: Page, people: number): Promise<void> {
  await page.locator("[data-breathing-room=present]").filter({ hasText: new RegExp(`^${people}$`) }).waitFor();
}
