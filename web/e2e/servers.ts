/** Whole servers of a test: the real executable on the embedded database, on loopback, trusting one another. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

const root = new URL("../..", import.meta.url).pathname;

function binary(): string {
  const file = process.env["CONCLAVE_BINARY"] ?? path.join(root, "bin/conclave");
  if (!existsSync(file)) throw new Error(`${file} is missing: run \`make build\` first`);
  return file;
}

// Of the ports that this process has given away, none is given twice: a server that restarts finds its own free.
const given = new Set<number>();

/**
 * Ports that were free a moment ago, all different. They are below those that the system gives to outgoing connections
 * and to listeners on port 0: one of those could take a port between now and the start of the server.
 */
async function freePorts(count: number): Promise<number[]> {
  const lowest = 15_000;
  const ports: number[] = [];
  while (ports.length < count) {
    const port = lowest + Math.floor(Math.random() * (32_000 - lowest));
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    ports.push(port);
  }
  return ports;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, "127.0.0.1");
  const free = await once(server, "listening").then(
    () => true,
    () => false,
  );
  if (free) await new Promise((done) => server.close(done));
  return free;
}

export class Server {
  private process: ChildProcess | null = null;

  private constructor(
    /** Its Matrix server name. */
    readonly name: string,
    /** Where its client opens. */
    readonly url: string,
    /** Configuration, data and log. */
    readonly dir: string,
  ) {}

  /** `settings` are keys of the configuration with their values, in the place of those that every test has. */
  static async prepare(parent: string, label: string, settings: Record<string, string> = {}): Promise<Server> {
    const [client, federation, admin] = await freePorts(3);
    const dir = path.join(parent, label);
    await mkdir(dir, { recursive: true });
    const server = new Server(`localhost:${federation}`, `http://localhost:${client}`, dir);
    const config = {
      server_name: server.name,
      public_url: server.url,
      data_dir: "./data",
      listen: `{client: "127.0.0.1:${client}", federation: "127.0.0.1:${federation}", admin: "127.0.0.1:${admin}"}`,
      database: `{url: "sqlite:conclave.db"}`,
      registration: "{mode: open}",
      auth: "{argon2: {memory_kib: 8192, time: 1, threads: 1}}",
      rate_limits: "{enabled: false}",
      network: `{allow_private: ["127.0.0.0/8", "::1/128"]}`,
      log: "{level: debug}",
      ...settings,
    };
    const lines = Object.entries(config).map(([key, value]) => `${key}: ${value}\n`);
    await writeFile(server.config, lines.join(""), { mode: 0o600 });
    return server;
  }

  get config(): string {
    return path.join(this.dir, "config.yaml");
  }

  get certificate(): string {
    return path.join(this.dir, "data/tls/cert.pem");
  }

  /** `environment` overrides the configuration, as CONCLAVE_… */
  async start(environment: Record<string, string> = {}): Promise<void> {
    const log = createWriteStream(path.join(this.dir, "log"), { flags: "a" });
    await once(log, "open");
    const child = spawn(binary(), ["serve", "-config", this.config], {
      cwd: this.dir,
      stdio: ["ignore", log, log],
      env: { ...process.env, ...environment },
    });
    this.process = child;
    const deadline = Date.now() + 60_000;
    for (;;) {
      if (child.exitCode !== null) throw new Error(`${this.name} ended at once:\n${await this.tail()}`);
      if (Date.now() > deadline) throw new Error(`${this.name} does not answer:\n${await this.tail()}`);
      const answer = await fetch(`${this.url}/_matrix/client/versions`).catch(() => null);
      if (answer?.ok === true) return;
      await new Promise((next) => setTimeout(next, 50)); // between two looks
    }
  }

  async stop(): Promise<void> {
    const child = this.process;
    this.process = null;
    if (child === null || child.exitCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const [code] = (await ended) as [number | null];
    if (code !== 0) throw new Error(`${this.name} did not drain: exit ${String(code)}\n${await this.tail()}`);
  }

  /** Makes an account as operators do, by the command line. */
  async createUser(name: string, password: string, admin = false): Promise<void> {
    const args = ["user", "create", name, "-config", this.config, "-password-file", "-", ...(admin ? ["-admin"] : [])];
    const child = spawn(binary(), args, { cwd: this.dir, stdio: ["pipe", "ignore", "inherit"] });
    child.stdin?.end(`${password}\n`);
    const [code] = (await once(child, "exit")) as [number | null];
    if (code !== 0) throw new Error(`making ${name} failed: exit ${String(code)}`);
  }

  async tail(): Promise<string> {
    return (await readFile(path.join(this.dir, "log"), "utf8").catch(() => "")).slice(-4000);
  }
}

export interface Pair {
  a: Server;
  b: Server;
  dir: string;
  end(): Promise<void>;
}

/** Two organizations: each trusts the certificate that the other made for itself at its first start. */
export async function startPair(): Promise<Pair> {
  const dir = await mkdtemp(path.join(tmpdir(), "conclave-e2e-"));
  const ca = path.join(dir, "ca.pem");
  await writeFile(ca, "");
  const settings = { federation: `{ca_file: ${JSON.stringify(ca)}}` };
  const [a, b] = [await Server.prepare(dir, "a", settings), await Server.prepare(dir, "b", settings)];
  const certificates: string[] = [];
  for (const server of [a, b]) {
    const first = spawn(binary(), ["serve", "-config", server.config], {
      cwd: server.dir,
      stdio: "ignore",
      env: { ...process.env, CONCLAVE_FEDERATION_CA_FILE: "" },
    });
    const deadline = Date.now() + 60_000;
    while (!existsSync(server.certificate)) {
      if (Date.now() > deadline || first.exitCode !== null) throw new Error(`${server.name} made no certificate`);
      await new Promise((next) => setTimeout(next, 50)); // between two looks
    }
    const ended = first.exitCode === null ? once(first, "exit") : Promise.resolve();
    first.kill("SIGTERM");
    await ended;
    certificates.push(await readFile(server.certificate, "utf8"));
  }
  await writeFile(ca, certificates.join("\n"));
  await Promise.all([a.start(), b.start()]);
  return {
    a,
    b,
    dir,
    async end() {
      await Promise.all([a.stop(), b.stop()]);
      if (process.env["CONCLAVE_KEEP"] === undefined) await rm(dir, { recursive: true, force: true });
    },
  };
}

/** One server without partners. */
export async function startAlone(
  settings: Record<string, string>,
  environment: Record<string, string> | ((server: Server) => Promise<Record<string, string>>) = {},
): Promise<{ server: Server; end(): Promise<void> }> {
  const dir = await mkdtemp(path.join(tmpdir(), "conclave-e2e-"));
  const server = await Server.prepare(dir, "alone", { federation: "{enabled: false}", ...settings });
  await server.start(typeof environment === "function" ? await environment(server) : environment);
  return {
    server,
    async end() {
      await server.stop();
      if (process.env["CONCLAVE_KEEP"] === undefined) await rm(dir, { recursive: true, force: true });
    },
  };
}
