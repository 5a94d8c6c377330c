/** Programs of our Go tests that help those in a browser: they print a line of JSON first, and end with their input. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface, type Interface } from "node:readline";

const root = new URL("../..", import.meta.url).pathname;

export class Helper {
  private constructor(
    private readonly process: ChildProcess,
    /** What it said first. */
    readonly first: unknown,
    /** What it says from then on. */
    readonly lines: Interface,
  ) {}

  /** Runs a package of ours, such as "./internal/mail/catcher/catch". */
  static async start(program: string, ...args: string[]): Promise<Helper> {
    const child = spawn("go", ["run", program, ...args], { cwd: root, stdio: ["pipe", "pipe", "inherit"] });
    const ended = once(child, "exit").then(([code]) => {
      throw new Error(`${program} ended with ${String(code)}`);
    });
    const lines = createInterface({ input: child.stdout });
    const [first] = (await Promise.race([once(lines, "line"), ended])) as [string];
    ended.catch(() => undefined); // whoever waits for something of it will say so
    return new Helper(child, JSON.parse(first), lines);
  }

  async close(): Promise<void> {
    if (this.process.exitCode !== null) return;
    const ended = once(this.process, "exit");
    this.process.stdin?.end();
    await ended;
  }
}
