// A TCP proxy between a browser and the hub that can cut the connections.

import { once } from "node:events";
import { type AddressInfo, type Server, type Socket, connect, createServer } from "node:net";

export class TcpProxy {
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  #cut = false;

  private constructor(port: number) {
    this.#server = createServer((client) => {
      if (this.#cut) return client.destroy();
      const upstream = connect(port, "127.0.0.1");
      for (const [socket, other] of [[client, upstream], [upstream, client]] as const) {
        this.#open.add(socket);
        socket.pipe(other);
        socket.on("error", () => undefined);
        socket.on("close", () => {
          this.#open.delete(socket);
          other.destroy();
        });
      }
    });
  }

  /** Starts a proxy to this local port. */
  static async start(port: number): Promise<TcpProxy> {
    const proxy = new TcpProxy(port);
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

  restore(): void {
    this.#cut = false;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
