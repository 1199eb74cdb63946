/** A real WebSocket server that says what a test tells it to: the other end of the library's sockets. */

import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocket, WebSocketServer } from "ws";

/** A WebSocket for Node that takes its failures as calmly as a browser's: what matters is the close event. */
export class BrowserSocket extends WebSocket {
  constructor(url: URL, protocols: string[]) {
    super(url, protocols);
    this.on("error", () => {});
  }
}

export interface Heard {
  type: string;
  ref: number;
  [field: string]: unknown;
}

/** One socket, as the hub sees it. */
export class Member {
  readonly heard: Heard[] = [];
  readonly closed: Promise<number>;
  #news: () => void = () => {};

  constructor(
    readonly socket: WebSocket,
    /** Path and query. */
    readonly path: string,
    readonly protocols: string[],
  ) {
    socket.on("message", (data) => {
      this.heard.push(JSON.parse(String(data)));
      this.#news();
    });
    this.closed = new Promise((resolve) => socket.on("close", resolve));
  }

  /** Whom the client says it is. */
  get visitor(): string | undefined {
    return this.protocols.find((protocol) => protocol.startsWith("visitor."))?.slice("visitor.".length);
  }

  say(message: object): void {
    this.socket.send(JSON.stringify(message));
  }

  welcome(more: object = {}): void {
    const { visitor } = this;
    const moods = { calm: 1 };
    this.say({ type: "welcome", visitor, present: 3, moods, vocabulary: ["calm", "joy"], ...more });
  }

  /** Waits until so many messages have come, and returns them. */
  async hears(count: number): Promise<Heard[]> {
    while (this.heard.length < count) await new Promise<void>((resolve) => (this.#news = resolve));
    return this.heard;
  }
}

export interface Post {
  path: string;
  headers: IncomingHttpHeaders;
  body: any[];
}

export class TestHub {
  readonly members: Member[] = [];
  readonly posts: Post[] = [];
  #server: Server;
  #news: () => void = () => {};

  private constructor(server: Server) {
    this.#server = server;
    const sockets = new WebSocketServer({ noServer: true });
    server.on("upgrade", (request, stream, head) => {
      sockets.handleUpgrade(request, stream, head, (socket) => {
        const offered = request.headers["sec-websocket-protocol"]?.split(",").map((item) => item.trim());
        this.members.push(new Member(socket, request.url!, offered ?? []));
        this.#news();
      });
    });
    server.on("request", async (request, response) => {
      const text = (await request.toArray()).join("");
      response.setHeader("access-control-allow-origin", "*").end("{}");
      if (request.method !== "POST") return; // happy-dom asks first, where browsers do not
      this.posts.push({ path: request.url!, headers: request.headers, body: JSON.parse(text) });
      this.#news();
    });
  }

  static async open(port = 0): Promise<TestHub> {
    const server = createServer();
    const hub = new TestHub(server);
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    return hub;
  }

  get address(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The member that comes as number `count`, counted from 1. */
  async member(count: number): Promise<Member> {
    await this.#until(() => this.members.length >= count);
    return this.members[count - 1]!;
  }

  async posted(count: number): Promise<Post[]> {
    await this.#until(() => this.posts.length >= count);
    return this.posts;
  }

  async close(): Promise<void> {
    for (const { socket } of this.members) socket.terminate();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #until(happened: () => boolean): Promise<void> {
    while (!happened()) await new Promise<void>((resolve) => (this.#news = resolve));
  }
}
