/** A TCP proxy in front of a server that cuts each connection at a byte of its requests or of its responses. */

import { createServer, connect, type Server as Listener, type Socket } from "node:net";
import { once } from "node:events";

/** Pseudo-random numbers from 0 to 1, the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class Proxy {
  cuts = 0;
  private readonly listener: Listener;
  private readonly sockets = new Set<Socket>();

  /** Each connection is cut before so many bytes have passed. */
  constructor(
    private readonly serverUrl: string,
    private readonly chance: () => number,
    private readonly requestBytes: number,
    private readonly responseBytes: number,
  ) {
    this.listener = createServer((client) => this.accept(client));
  }

  async start(): Promise<string> {
    this.listener.listen(0, "127.0.0.1");
    await once(this.listener, "listening");
    const address = this.listener.address();
    return `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  }

  async end(): Promise<void> {
    this.listener.close();
    for (const socket of this.sockets) {
      socket.destroy();
    }
    await once(this.listener, "close");
  }

  private accept(client: Socket): void {
    const server = connect(Number(new URL(this.serverUrl).port), "127.0.0.1");
    for (const [source, target, limit] of [
      [client, server, this.requestBytes],
      [server, client, this.responseBytes],
    ] as const) {
      let left = Math.floor(this.chance() * limit);
      this.sockets.add(source);
      source.on("data", (data: Buffer) => {
        if (left < 0) {
          return;
        }
        left -= data.length;
        if (left >= 0) {
          target.write(data);
          return;
        }
        this.cuts += 1;
        // An orderly close on this side, so that the forwarded data arrives.
        target.end(data.subarray(0, data.length + left));
        source.destroy();
      });
      source.on("end", () => target.end());
      source.on("close", () => this.sockets.delete(source));
      source.on("error", () => target.destroy());
    }
  }
}
