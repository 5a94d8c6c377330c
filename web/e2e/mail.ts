/** The mails that servers of a test send: taken by the mail server of our Go tests, in a process of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const root = new URL("../..", import.meta.url).pathname;

export interface Mail {
  to: string;
  subject: string;
  text: string;
  /** The first address in the text. */
  link: string;
}

export class Mailbox {
  private readonly mails: Mail[] = [];
  private readonly waiting = new Set<() => void>();

  private constructor(
    private readonly process: ChildProcess,
    /** For the configuration of a server. */
    readonly url: string,
  ) {}

  static async open(): Promise<Mailbox> {
    const child = spawn("go", ["run", "./internal/mail/catcher/catch"], {
      cwd: root,
      stdio: ["pipe", "pipe", "inherit"],
    });
    const ended = once(child, "exit").then(([code]) => {
      throw new Error(`the mail server ended with ${String(code)}`);
    });
    const lines = createInterface({ input: child.stdout });
    const first = (await Promise.race([once(lines, "line"), ended])) as [string];
    ended.catch(() => undefined); // whoever waits for a mail will say so
    const box = new Mailbox(child, (JSON.parse(first[0]) as { url: string }).url);
    lines.on("line", (line) => {
      box.mails.push(JSON.parse(line) as Mail);
      for (const look of box.waiting) look();
    });
    return box;
  }

  /** The oldest mail to an address with a link that has `part` in it, which nobody has taken yet, once it is there. */
  async take(to: string, part: string, timeoutMs = 20_000): Promise<Mail> {
    let look = (): void => undefined;
    let timer: NodeJS.Timeout | undefined;
    const taken = new Promise<Mail>((resolve, reject) => {
      look = () => {
        const at = this.mails.findIndex((mail) => mail.to === to && mail.link.includes(part));
        const [mail] = at < 0 ? [] : this.mails.splice(at, 1);
        if (mail !== undefined) resolve(mail);
      };
      timer = setTimeout(() => reject(new Error(`no mail to ${to} came`)), timeoutMs);
    });
    this.waiting.add(look);
    look();
    try {
      return await taken;
    } finally {
      clearTimeout(timer);
      this.waiting.delete(look);
    }
  }

  /** Ends the mail server, which ends with its input. */
  async close(): Promise<void> {
    if (this.process.exitCode !== null) return;
    const ended = once(this.process, "exit");
    this.process.stdin?.end();
    await ended;
  }
}
