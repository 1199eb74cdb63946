// A TCP proxy between a browser and the hub that can cut the connections, drop their bytes, or change bytes of the hub.

import { once } from "node:events";
import { type AddressInfo, type Server, type Socket, connect, createServer } from "node:net";

/** Returns as many bytes as it gets. */
type Change = (data: Buffer) => Buffer;

export class TcpProxy {
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  #cut = false;
  #dropped = new WeakSet<Socket>();

  private constructor(port: number, change: Change) {
    this.#server = createServer((client) => {
      if (this.#cut) return client.destroy();
      const upstream = connect(port, "127.0.0.1");
      for (const [socket, other] of [[client, upstream], [upstream, client]] as const) {
        this.#open.add(socket);
        socket.on("data", (data) => {
          if (!this.#dropped.has(socket)) other.write(socket === upstream ? change(data) : data);
        });
        socket.on("end", () => other.end());
        socket.on("error", () => undefined);
        socket.on("close", () => {
          this.#open.delete(socket);
          other.destroy();
        });
      }
    });
  }

  /** Starts a proxy to this local port. `change` changes what the hub sends. */
  static async start(port: number, change: Change = (data) => data): Promise<TcpProxy> {
    const proxy = new TcpProxy(port, change);
    await once(proxy.#server.listen(0, "127.0.0.1"), "listening");
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Closes all connections and rejects new ones. */
  cut(): void {
    this.#cut = true;
    for (const socket of this.#open) socket.destroy();
  }

  /** Drops all bytes of the connections that are open now, which stay open: the path is dead and looks alive. */
  drop(): void {
    for (const socket of this.#open) this.#dropped.add(socket);
  }

  restore(): void {
    this.#cut = false;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
