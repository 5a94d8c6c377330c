/** The mails that servers of a test send: taken by the mail server of our Go tests, in a process of its own. */
import { Helper } from "./helper.ts";

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
    private readonly helper: Helper,
    /** For the configuration of a server. */
    readonly url: string,
  ) {}

  static async open(): Promise<Mailbox> {
    const helper = await Helper.start("./internal/mail/catcher/catch");
    const box = new Mailbox(helper, (helper.first as { url: string }).url);
    helper.lines.on("line", (line) => {
      box.mails.push(JSON.parse(line) as Mail);
      for (const look of box.waiting) look();
    });
    return box;
  }

  /** The oldest mail to an address with a link that has `part` in it, which nobody has taken yet, once it is there. */
  async take(to: string, part: string, timeoutMs = 60_000): Promise<Mail> {
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

  /** Ends the mail server. */
  close(): Promise<void> {
    return this.helper.close();
  }
}
