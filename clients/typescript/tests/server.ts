/** Real servers, each in its own process, for the tests of one file. */

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

import { Client, type ClientOptions } from "leasehold";

/** Where `make test` (tests/typescript.py) starts and ends servers. A server that it forks has its modules already. */
const SERVICES = process.env["LEASEHOLD_TEST_SERVICES"];

async function ask<T>(method: string, asked: Record<string, unknown>): Promise<T> {
  if (SERVICES === undefined) {
    throw new Error("LEASEHOLD_TEST_SERVICES is not set: run this with pytest tests/clients/test_typescript.py");
  }
  const response = await fetch(`${SERVICES}/${method}`, { method: "POST", body: JSON.stringify(asked) });
  if (!response.ok) {
    throw new Error(`${method}: ${await response.text()}`);
  }
  return (await response.json()) as T;
}

export class Server {
  url = "";
  private number = -1;

  /** With `keepsPort`, the port stays the same, and no other program gets it while the server is stopped. */
  static async create(store: string, environment: Record<string, string>, keepsPort: boolean): Promise<Server> {
    const server = new Server();
    return Object.assign(server, await ask<object>("create", { store, environment, keeps_port: keepsPort }));
  }

  async start(): Promise<void> {
    Object.assign(this, await ask<object>("start", { number: this.number }));
  }

  /** It may have ended before. */
  async end(name: NodeJS.Signals = "SIGTERM"): Promise<void> {
    await ask("end", { number: this.number, name });
  }

  async restart(): Promise<void> {
    await this.end();
    await this.start();
  }

  /** A lease that no client renews. */
  async lease(lock: string, ttl = 600): Promise<{ lease_id: string; token: number }> {
    const response = await fetch(`${this.url}/locks/${lock}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ttl }),
    });
    return (await response.json()) as { lease_id: string; token: number };
  }
}

/** Shared by the tests of a file, each of which uses its own keys. */
export function memoryServer(environment: Record<string, string> = {}): Promise<Server> {
  return Server.create("memory:", environment, false);
}

/** Calls `use` with a server that has files and keeps its port when it is started again. */
export async function withOwnServer(use: (server: Server, folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), "leasehold-"));
  const server = await Server.create(path.join(folder, "data.json"), {}, true);
  try {
    await use(server, folder);
  } finally {
    await server.end("SIGKILL");
    rmSync(folder, { recursive: true });
  }
}

/** Forgets everything that the server has stored. It must not run. */
export function removeFiles(folder: string): void {
  for (const name of ["data.json", "data.json.journal", "data.json.journal.old"]) {
    if (existsSync(path.join(folder, name))) {
      rmSync(path.join(folder, name));
    }
  }
}

/** A client whose warnings are not printed. */
export function client(server: Server | string, options: ClientOptions = {}): Client {
  const url = typeof server === "string" ? server : server.url;
  return new Client(url, { onWarning: () => {}, ...options });
}

let numbers = 0;

/** A key, or the name of a lock, that no other test of the file uses. */
export function freshKey(): string {
  numbers += 1;
  return `entry-${numbers}`;
}

/** Wait until it is true. The limit is longer than anything takes, also on a busy machine. */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  const giveUpAt = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > giveUpAt) {
      throw new Error("the awaited condition did not become true in time");
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Everything that an iterator yields. */
export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) {
    found.push(item);
  }
  return found;
}
