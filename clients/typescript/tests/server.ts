/** Real servers, each in its own process, for the tests of one file. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { Client, type ClientOptions } from "leasehold";

const REPOSITORY = path.resolve(fileURLToPath(import.meta.url), "../../../..");
/** A Python in whose environment the service is installed. `make test` says which. */
const PYTHON = process.env["LEASEHOLD_TEST_PYTHON"] ?? path.join(REPOSITORY, ".venv/bin/python");

export class Server {
  url = "";
  private process: ChildProcess | undefined;
  private port = 0;

  constructor(
    private readonly store: string,
    private readonly environment: Record<string, string>,
  ) {}

  async start(): Promise<this> {
    const environment = Object.entries(process.env).filter(([name]) => !name.startsWith("LEASEHOLD_"));
    const started = spawn(
      PYTHON,
      ["-m", "leasehold", "serve", `--port=${this.port}`, `--store=${this.store}`, "--log-level=error"],
      { stdio: ["ignore", "pipe", "inherit"], env: { ...Object.fromEntries(environment), ...this.environment } },
    );
    this.process = started;
    const lines = createInterface({ input: started.stdout });
    const [line] = (await Promise.race([once(lines, "line"), once(started, "exit")])) as [unknown];
    if (typeof line !== "string") {
      throw new Error(`the server did not start: exit code ${String(line)}`);
    }
    this.url = line.split(" ")[3] ?? "";
    this.port = Number(new URL(this.url).port);
    return this;
  }

  /** The port stays the same. `make test` reserves it (LEASEHOLD_TEST_PORT), so that no other program gets it. */
  restartable(): this {
    this.port = Number(process.env["LEASEHOLD_TEST_PORT"] ?? 0);
    return this;
  }

  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const running = this.process;
    if (running !== undefined && running.exitCode === null && running.signalCode === null) {
      running.kill(signal);
      await once(running, "exit");
    }
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
  return new Server("memory:", environment).start();
}

/** Calls `use` with a server that has files and keeps its port when it is started again. */
export async function withOwnServer(use: (server: Server, folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), "leasehold-"));
  const server = new Server(path.join(folder, "data.json"), {}).restartable();
  try {
    await server.start();
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
