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
  /** All messages but pings. */
  readonly received: ClientMessage[] = [];
  /** Number of pings. */
  pings = 0;
  /** How it answers pings; undefined: not at all. */
  answer: (() => object) | undefined = () => ({ type: "pong", serverTime: Date.now() });
  readonly closed: Promise<number>;
  #notify: () => void = () => {};

  constructor(
    readonly socket: WebSocket,
    /** Path and query. */
    readonly path: string,
    readonly protocols: string[],
  ) {
    socket.on("message", (data) => {
      const message = JSON.parse(String(data)) as ClientMessage;
      if (message.type === "ping") {
        this.pings++;
        if (this.answer) this.send(this.answer());
      } else {
        this.received.push(message);
      }
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

  /** Sends the welcome of a hub of today. */
  welcome(more: object = {}): void {
    this.oldWelcome({ pingAfterMs: 60_000, mood: null, ...more });
  }

  /** Sends the welcome of a hub that knows neither pings nor sits nor own moods. */
  oldWelcome(more: object = {}): void {
    const { visitor } = this;
    const counts = { present: 3, moods: { calm: 1 }, vocabulary: ["calm", "joy"] };
    this.send({ type: "welcome", visitor, serverTime: Date.now(), ...counts, ...more });
  }

  /** Waits until at least `count` messages have arrived, and returns all. */
  async receive(count: number): Promise<ClientMessage[]> {
    await this.#until(() => this.received.length >= count);
    return this.received;
  }

  /** Waits for the ping number `count`. */
  async ping(count: number): Promise<void> {
    await this.#until(() => this.pings >= count);
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => (this.#notify = resolve));
  }
}

export interface PostRequest {
  path: string;
  headers: IncomingHttpHeaders;
  body: any[];
}

/** A response to an upgrade, a plain GET of a socket or a post. */
export interface Answer {
  status: number;
  code?: string;
  message?: string;
  headers?: Record<string, string>;
}

export class TestHub {
  readonly sessions: HubSession[] = [];
  readonly posts: PostRequest[] = [];
  /** Requests for a socket, upgrades and plain, with their headers. */
  readonly requests: IncomingHttpHeaders[] = [];
  /** Refuses a socket; undefined accepts it. */
  refuse: (headers: IncomingHttpHeaders) => Answer | undefined = () => undefined;
  /** Refuses a post; undefined accepts it. */
  refusePost: (events: any[], headers: IncomingHttpHeaders) => Answer | undefined = () => undefined;
  #server: Server;
  #notify: () => void = () => {};

  private constructor(server: Server) {
    this.#server = server;
    const sockets = new WebSocketServer({ noServer: true });
    server.on("upgrade", (request, stream, head) => {
      this.requests.push(request.headers);
      const refusal = this.refuse(request.headers);
      if (refusal) return stream.end(`HTTP/1.1 ${refusal.status} Refused\r\nConnection: close\r\n\r\n`);
      sockets.handleUpgrade(request, stream, head, (socket) => {
        const offered = request.headers["sec-websocket-protocol"]?.split(",").map((item) => item.trim());
        this.sessions.push(new HubSession(socket, request.url!, offered ?? []));
        this.#notify();
      });
    });
    server.on("request", async (request, response) => {
      const { method, url, headers } = request;
      const text = (await request.toArray()).join("");
      const answer = ({ status, code = "refused", message = "", headers }: Answer): void => {
        for (const [name, value] of Object.entries(headers ?? {})) response.setHeader(name, value);
        response.writeHead(status).end(JSON.stringify({ error: { code, message } }));
      };
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader("access-control-allow-headers", "authorization, visitor");
      response.setHeader("access-control-expose-headers", "retry-after");
      if (method === "OPTIONS") return response.end();
      if (method === "GET") {
        this.requests.push(headers);
        return answer(this.refuse(headers) ?? { status: 426, code: "upgrade-required" });
      }
      const body = JSON.parse(text);
      const refusal = this.refusePost(body, headers);
      if (refusal) answer(refusal);
      else response.end("{}");
      this.posts.push({ path: url!, headers, body });
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
