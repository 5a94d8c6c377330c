/** What a person does in the client, through what a person sees of it. */
import type { Browser, BrowserContext, BrowserContextOptions, Locator, Page } from "playwright-core";
import { desktop } from "./browser.ts";
import { type Language, type Say, texts } from "./texts.ts";

const patience = 45_000;

export class Person {
  readonly problems: string[] = [];
  readonly words: Say;

  private constructor(
    readonly name: string,
    readonly url: string,
    readonly context: BrowserContext,
    readonly page: Page,
    language: Language,
  ) {
    this.words = texts(language);
  }

  static async arrive(
    browser: Browser,
    name: string,
    url: string,
    language: Language = "en",
    options: BrowserContextOptions = {},
  ): Promise<Person> {
    const context = await browser.newContext({
      viewport: desktop,
      locale: language === "en" ? "en-GB" : "de-DE",
      colorScheme: "light",
      reducedMotion: "reduce",
      ...options,
    });
    // Whatever the policy refuses is a fault of ours, even if nobody notices it.
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) =>
        console.error(
          `policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample} ${event.sourceFile ?? ""}`,
        ),
      );
    });
    const page = await context.newPage();
    page.setDefaultTimeout(patience);
    const person = new Person(name, url, context, page, language);
    page.on("pageerror", (error) => person.problems.push(`${name}: ${error.stack ?? error.message}`));
    page.on("console", (message) => {
      const text = message.text();
      if (text.startsWith("policy:")) person.problems.push(`${name}: ${text}`);
      if (process.env["E2E_CONSOLE"] !== undefined) console.log(`[${name}] ${message.type()}: ${text}`);
    });
    page.on("response", (response) => {
      if (process.env["E2E_CONSOLE"] !== undefined && response.status() >= 400) {
        void response.text().then(
          (body) =>
            console.log(
              `[${name}] ${response.status()} ${response.request().method()} ${response.url()} ${body.slice(0, 200)}`,
            ),
          () => undefined,
        );
      }
    });
    await page.goto(url);
    return person;
  }

  /** Registers, keeps the recovery key and proves it; gives the key. */
  async register(password: string, look?: (page: Page) => Promise<void>): Promise<string> {
    const { page } = this;
    await page.getByRole("button", { name: "Create account" }).click();
    await page.getByLabel("Name", { exact: true }).fill(this.name);
    await page.getByText(`@${this.name} is free.`).waitFor();
    await page.getByLabel("Password", { exact: true }).fill(password);
    await look?.(page);
    await page.getByRole("button", { name: "Create account" }).click();
    return this.keepKey();
  }

  /** Keeps the recovery key that is shown, and proves it; gives the key. */
  async keepKey(look?: (name: string) => Promise<void>): Promise<string> {
    const { page, words } = this;
    const key = page.getByTestId("recovery-key");
    await key.waitFor();
    const groups = await key.locator("li > span:last-child").allTextContents();
    await look?.("recovery-key");
    await page.getByRole("button", { name: words("recovery.kept") }).click();
    for (const input of await page.getByLabel(new RegExp(`^${words("recovery.group", { n: "\\d+" })}$`)).all()) {
      const label = await input.evaluate((element: HTMLInputElement) => element.labels?.[0]?.textContent ?? "");
      await input.fill(groups[Number(label.replace(/\D/g, "")) - 1] ?? "");
    }
    await look?.("recovery-confirm");
    await page.getByRole("button", { name: words("recovery.confirm") }).click();
    await page.getByTestId("account").waitFor();
    return groups.join(" ");
  }

  async createGroup(name: string, invite: string[]): Promise<void> {
    const { page } = this;
    await page.getByRole("button", { name: "New conversation" }).first().click();
    await page.getByRole("menuitem", { name: "New group" }).click();
    await page.getByLabel("Name of the group").fill(name);
    for (const userId of invite) {
      await page.getByLabel("Invite", { exact: true }).fill(userId);
      await page.getByLabel("Invite", { exact: true }).press("Enter");
    }
    await page.getByRole("button", { name: "Create group" }).click();
    await this.room(name);
  }

  /** Waits for a conversation to be the open one. */
  async room(name: string): Promise<void> {
    await this.page.getByRole("main").getByRole("heading", { level: 1, name }).waitFor();
  }

  row(name: string): Locator {
    return this.page.locator("a[data-room]").filter({ hasText: name });
  }

  async accept(name: string): Promise<void> {
    await this.row(name).click();
    await this.page.getByRole("button", { name: "Accept" }).click();
    await this.room(name);
  }

  async say(text: string): Promise<void> {
    const input = this.page.getByRole("textbox", { name: /^Write to/ });
    await input.fill(text);
    await input.press("Enter");
  }

  message(text: string): Locator {
    return this.page.locator("article[data-message]").filter({ hasText: text });
  }

  async sees(text: string, timeout = patience): Promise<void> {
    await this.message(text).first().waitFor({ timeout });
  }

  /** Waits until an own message has come as far as `state`. */
  async reached(text: string, state: string): Promise<void> {
    await this.message(text).locator(`[data-delivery="${state}"]`).waitFor();
  }

  async sendFile(name: string, mimeType: string, buffer: Buffer): Promise<void> {
    await this.page.getByTestId("file-input").setInputFiles({ name, mimeType, buffer });
  }

  /** Waits until the picture of that name stands in the timeline, decrypted. */
  async seesPicture(name: string): Promise<void> {
    const picture = this.page.locator(`article img[alt="${name}"]`);
    await picture.waitFor();
    await this.page.waitForFunction((alt) => {
      const image = document.querySelector<HTMLImageElement>(`article img[alt="${alt}"]`);
      return image !== null && image.complete && image.naturalWidth > 0;
    }, name);
  }

  /** Every text that the timeline holds, from the newest to the beginning of the conversation. */
  async everything(): Promise<string> {
    const { page } = this;
    const list = page.getByRole("region", { name: "Messages" }).getByTestId("virtuoso-scroller");
    await list.hover(); // a person turns the wheel: scrolling by script is what the list itself does, and undoes
    let all = "";
    const deadline = Date.now() + patience;
    while (Date.now() < deadline) {
      all += (await page.locator("article[data-message]").allTextContents()).join("\n");
      all += (
        await page
          .locator("article img")
          .evaluateAll((images) => images.map((image) => (image as HTMLImageElement).alt))
      ).join("\n");
      if ((await page.getByText("This is the beginning of").count()) > 0) break;
      await page.mouse.wheel(0, -500);
      await page.waitForTimeout(120); // lets the list draw what came into sight
    }
    await page.getByRole("button", { name: "Go to the newest message" }).click();
    return all;
  }
}
