/** A WebSocket and HTTP server that plays the hub. Tests script its messages. */

import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocket, WebSocketServer } from "ws";

/** Node's WebSocket with browser behavior: a failure is a close event, not an exception. */
export class BrowserSocket extends WebSocket {
  constructor(url: URL, protocols: string[]) {
    super(url, protocols);
    this.on("error", () => {});
  }
}

export interface ClientMessage {
  type: string;
  ref: number;
  [field: string]: unknown;
}

/** The hub's end of one socket. */
export class HubSession {
  readonly received: ClientMessage[] = [];
  readonly closed: Promise<number>;
  #notify: () => void = () => {};

  constructor(
    readonly socket: WebSocket,
    /** Path and query. */
    readonly path: string,
    readonly protocols: string[],
  ) {
    socket.on("message", (data) => {
      this.received.push(JSON.parse(String(data)));
      this.#notify();
    });
    this.closed = new Promise((resolve) => socket.on("close", resolve));
  }

  /** The visitor id that the client offers. */
  get visitor(): string | undefined {
    return this.protocols.find((protocol) => protocol.startsWith("visitor."))?.slice("visitor.".length);
  }

  send(message: object): void {
    this.socket.send(JSON.stringify(message));
  }

  welcome(more: object = {}): void {
    const { visitor } = this;
    const moods = { calm: 1 };
    this.send({ type: "welcome", visitor, present: 3, moods, vocabulary: ["calm", "joy"], ...more });
  }

  /** Waits until at least `count` messages have arrived, and returns all. */
  async receive(count: number): Promise<ClientMessage[]> {
    while (this.received.length < count) await new Promise<void>((resolve) => (this.#notify = resolve));
    return this.received;
  }
}

export interface PostRequest {
  path: string;
  headers: IncomingHttpHeaders;
  body: any[];
}

export class TestHub {
  readonly sessions: HubSession[] = [];
  readonly posts: PostRequest[] = [];
  #server: Server;
  #notify: () => void = () => {};

  private constructor(server: Server) {
    this.#server = server;
    const sockets = new WebSocketServer({ noServer: true });
    server.on("upgrade", (request, stream, head) => {
      sockets.handleUpgrade(request, stream, head, (socket) => {
        const offered = request.headers["sec-websocket-protocol"]?.split(",").map((item) => item.trim());
        this.sessions.push(new HubSession(socket, request.url!, offered ?? []));
        this.#notify();
      });
    });
    server.on("request", async (request, response) => {
      const text = (await request.toArray()).join("");
      response.setHeader("access-control-allow-origin", "*").end("{}");
      if (request.method !== "POST") return; // happy-dom sends a preflight here, browsers do not
      this.posts.push({ path: request.url!, headers: request.headers, body: JSON.parse(text) });
      this.#notify();
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

  /** Waits for the session number `count`, counted from 1. */
  async session(count: number): Promise<HubSession> {
    await this.#until(() => this.sessions.length >= count);
    return this.sessions[count - 1]!;
  }

  async posted(count: number): Promise<PostRequest[]> {
    await this.#until(() => this.posts.length >= count);
    return this.posts;
  }

  async close(): Promise<void> {
    for (const { socket } of this.sessions) socket.terminate();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => (this.#notify = resolve));
  }
}
