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

/** Ports that were free a moment ago, all different. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      return server;
    }),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    if (typeof address !== "object" || address === null) throw new Error("a listener without a port");
    return address.port;
  });
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
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

  static async prepare(parent: string, label: string, ca: string): Promise<Server> {
    const [client, federation, admin] = await freePorts(3);
    const dir = path.join(parent, label);
    await mkdir(dir, { recursive: true });
    const server = new Server(`localhost:${federation}`, `http://localhost:${client}`, dir);
    const config = [
      `server_name: ${server.name}`,
      `public_url: ${server.url}`,
      `data_dir: ./data`,
      `listen: {client: "127.0.0.1:${client}", federation: "127.0.0.1:${federation}", admin: "127.0.0.1:${admin}"}`,
      `database: {url: "sqlite:conclave.db"}`,
      `registration: {mode: open}`,
      `auth: {argon2: {memory_kib: 8192, time: 1, threads: 1}}`,
      `rate_limits: {enabled: false}`,
      `federation: {ca_file: ${JSON.stringify(ca)}}`,
      `network: {allow_private: ["127.0.0.0/8", "::1/128"]}`,
      `log: {level: debug}`,
    ];
    await writeFile(path.join(dir, "config.yaml"), `${config.join("\n")}\n`, { mode: 0o600 });
    return server;
  }

  get certificate(): string {
    return path.join(this.dir, "data/tls/cert.pem");
  }

  /** Starts it; env is what its configuration has beside the file. */
  async start(env: Record<string, string> = {}): Promise<void> {
    const log = createWriteStream(path.join(this.dir, "log"), { flags: "a" });
    await once(log, "open");
    const child = spawn(binary(), ["serve", "-config", path.join(this.dir, "config.yaml")], {
      cwd: this.dir,
      stdio: ["ignore", log, log],
      env: { ...process.env, ...env },
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
  const [a, b] = [await Server.prepare(dir, "a", ca), await Server.prepare(dir, "b", ca)];
  const certificates: string[] = [];
  for (const server of [a, b]) {
    const first = spawn(binary(), ["serve", "-config", path.join(server.dir, "config.yaml")], {
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
