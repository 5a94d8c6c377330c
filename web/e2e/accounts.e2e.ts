/**
 * An account from its invitation to its last way back in, as a person meets it: real mails, an authenticator app, a lost phone, a passkey, a
 * forgotten password; then a server that demands a second factor, and what an old client is told.
 *
 * In the short form the story is told once, in English on a desktop, with a look at each page on a phone; in the long one again in German on
 * a phone. ACCOUNT_SHOTS names a folder that takes pictures of each page in both sizes and schemes.
 */
import { mkdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Browser, CDPSession, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { desktop, launch, phone } from "./browser.ts";
import { cutTexts, inspect, sideways } from "./looks.ts";
import { Mailbox } from "./mail.ts";
import { Phone } from "./otp.ts";
import { Person } from "./person.ts";
import { type Server, startAlone } from "./servers.ts";
import { type Language, serverTexts } from "./texts.ts";

const shots = process.env["ACCOUNT_SHOTS"];
const long = process.env["CONCLAVE_LONG"] !== undefined || shots !== undefined;
const rootPassword = "a password for the root of all";

let mailbox: Mailbox;
let server: Server;
let end: () => Promise<void>;
let browser: Browser;
let admin: string;

beforeAll(async () => {
  [mailbox, browser] = await Promise.all([Mailbox.open(), launch()]);
  ({ server, end } = await startAlone({
    registration: "{mode: token, require_email: true}",
    email: `{smtp_url: ${JSON.stringify(mailbox.url)}, from: "Conclave <conclave@northwind.example>"}`,
  }));
  await server.createUser("root", rootPassword, true);
  const { status, body } = await oldClient("root", rootPassword);
  expect(status).toBe(200);
  admin = String(body["access_token"]);
});

afterAll(async () => {
  await browser?.close();
  await end?.();
  await mailbox?.close();
});

async function post(
  endpoint: string,
  body: unknown,
  token = "",
): Promise<{ status: number; body: Record<string, unknown> }> {
  const answer = await fetch(server.url + endpoint, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(token === "" ? {} : { Authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

/** What a client does that knows nothing but passwords. */
function oldClient(user: string, password: string): ReturnType<typeof post> {
  return post("/_matrix/client/v3/login", {
    type: "m.login.password",
    identifier: { type: "m.id.user", user },
    password,
  });
}

async function newInvitation(): Promise<string> {
  const { status, body } = await post("/_synapse/admin/v1/registration_tokens/new", { uses_allowed: 1 }, admin);
  expect(status).toBe(200);
  return String(body["link"]);
}

/** Somebody with an account, and all that they keep. */
class Owner {
  private password = "four harbour cranes at dawn";
  private key = "";
  private codes: string[] = [];
  private phone: Phone | null = null;
  private passkeys: CDPSession | null = null;
  private readonly page: Page;
  private readonly say;
  private readonly pageSays;

  constructor(
    readonly person: Person,
    private readonly language: Language,
  ) {
    this.page = person.page;
    this.say = person.words;
    this.pageSays = serverTexts(language);
  }

  private get mail(): string {
    return `${this.person.name}@northwind.example`;
  }

  private button(key: string): ReturnType<Page["getByRole"]> {
    return this.page.getByRole("button", { name: this.say(key), exact: true });
  }

  private field(key: string): ReturnType<Page["getByLabel"]> {
    return this.page.getByLabel(this.say(key), { exact: true });
  }

  private async title(key: string): Promise<void> {
    await this.page.getByRole("heading", { name: this.say(key), exact: true }).waitFor();
  }

  /** Looks at a page: what axe says of it, and whether it holds on a phone as well. */
  private async look(name: string, page = this.page): Promise<void> {
    const { problems } = this.person;
    await page.mouse.move(0, 0); // nothing hovers
    await page.evaluate(() => document.fonts.ready.then(() => undefined));
    const before = page.viewportSize() ?? desktop;
    problems.push(...(await inspect(page)).map((finding) => `${name}: ${finding}`));
    for (const size of [desktop, phone]) {
      await page.setViewportSize(size);
      if ((await sideways(page)) > 0) problems.push(`${name}: scrolls sideways at ${size.width}`);
      problems.push(...(await cutTexts(page)).map((finding) => `${name} at ${size.width}: ${finding}`));
      if (shots !== undefined) await this.shoot(name, page, size === phone ? "phone" : "desktop");
    }
    await page.setViewportSize(before);
  }

  private async shoot(name: string, page: Page, size: string): Promise<void> {
    await mkdir(shots ?? "", { recursive: true });
    for (const colorScheme of ["dark", "light"] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.screenshot({ path: path.join(shots ?? "", `${name}-${size}-${colorScheme}-${this.language}.png`) });
    }
  }

  /** Opens the link of the mail that is on its way, and allows there what it asks for. */
  private async confirmByMail(name: string, allow: string): Promise<void> {
    const { link } = await mailbox.take(this.mail, "token=");
    const page = await this.person.context.newPage();
    await page.goto(link);
    await this.look(name, page);
    await page.getByRole("button", { name: this.pageSays(allow) }).click();
    await page.getByRole("heading", { name: this.pageSays("email.done") }).waitFor();
    await this.look(`${name}-done`, page);
    await page.close();
    await this.page.bringToFront();
  }

  async signUp(link: string): Promise<void> {
    await this.page.goto(link);
    await this.title("signUp.invitedTitle");
    await this.field("signUp.name").fill(this.person.name);
    await this.page.getByText(this.say("signUp.nameFree", { name: this.person.name })).waitFor();
    await this.field("signUp.password").fill(this.password);
    await this.field("signUp.email").fill(this.mail);
    await this.look("sign-up");
    await this.button("signUp.action").click();
    await this.title("mail.title");
    await this.look("sign-up-mail");
    await this.confirmByMail("mail-page", "email.confirm");
    await this.button("mail.check").click();
    this.key = await this.person.keepKey((name) => this.look(name));
  }

  async openSettings(page: string): Promise<void> {
    await this.page.getByTestId("account").click();
    await this.page.getByRole("menuitem", { name: this.say("shell.settings") }).click();
    await this.turnTo(page);
  }

  /** To a page of the settings from the list of them. */
  private async turnTo(page: string): Promise<void> {
    await this.page.getByRole("link", { name: this.say(`settingsPages.${page}`) }).click();
    await this.page.getByRole("heading", { level: 1, name: this.say(`settingsPages.${page}`) }).waitFor();
  }

  /** A phone shows the list of the settings or one of them. */
  private async backToList(): Promise<void> {
    if (!(await this.button("settings.signOut").isVisible()))
      await this.button("back").filter({ visible: true }).click();
  }

  /** Proves who one is where that is asked for: by the password, and by the passkey where there is one. */
  private async confirm(name: string, withPasskey = false): Promise<void> {
    const dialog = this.page.getByRole("dialog", { name: this.say("confirm.title") });
    await dialog.getByLabel(this.say("confirm.password"), { exact: true }).fill(this.password);
    await this.look(name);
    await dialog.getByRole("button", { name: this.say("confirm.action"), exact: true }).click();
    if (withPasskey) await dialog.getByRole("button", { name: this.say("confirm.passkeyAction") }).click();
    await dialog.waitFor({ state: "hidden" });
  }

  private async keepCodes(name: string): Promise<void> {
    const list = this.page.getByTestId("recovery-codes");
    await list.waitFor();
    this.codes = (await list.getByRole("listitem").allTextContents()).map((text) => text.trim());
    expect(this.codes).toHaveLength(10);
    await this.look(name);
    await this.button("security.codesKept").click();
    await list.waitFor({ state: "hidden" });
  }

  async enrolPhone(): Promise<void> {
    await this.openSettings("security");
    await this.page.getByText(this.say("security.off")).waitFor();
    await this.look("security-off");
    await this.page.getByTestId("totp-set-up").click();
    await this.confirm("confirm");
    const secret = this.page.getByTestId("totp-secret");
    this.phone = new Phone((await secret.textContent()) ?? "");
    await this.look("authenticator");
    await this.field("security.enrolCode").fill("000000");
    await this.button("security.enrolAction").click();
    await this.page.getByText(this.say("security.enrolWrong")).waitFor();
    await this.field("security.enrolCode").fill(this.phone.next());
    await this.button("security.enrolAction").click();
    await this.keepCodes("recovery-codes");
    await this.page.getByText(this.say("security.on")).waitFor();
    await this.look("security-on");
  }

  /** Away from the settings: as somebody does who has finished. Whoever signs in next begins at the start. */
  async signOut(): Promise<void> {
    await this.backToList();
    await this.button("settings.signOut").click();
    await this.page
      .getByRole("alertdialog")
      .getByRole("button", { name: this.say("settings.signOut") })
      .click();
    await this.title("signIn.title");
    expect(new URL(this.page.url()).pathname).toBe("/");
  }

  /** A session that asks for the recovery key is open: the server has let it in. */
  private async isIn(): Promise<void> {
    await this.title("unlock.title");
  }

  async leave(): Promise<void> {
    await this.button("unlock.signOut").click();
    await this.title("signIn.title");
  }

  async unlock(): Promise<void> {
    await this.field("unlock.key").fill(this.key);
    await this.look("unlock");
    await this.button("unlock.action").click();
    await this.page.getByTestId("account").waitFor({ state: "attached" });
  }

  private async enterPassword(): Promise<void> {
    await this.field("signIn.user").fill(this.person.name);
    await this.field("signIn.password").fill(this.password);
    await this.button("signIn.action").click();
  }

  /** By keyboard alone, from the first key to the conversations. */
  async signInByPhone(): Promise<void> {
    const { keyboard } = this.page;
    await this.field("signIn.user").waitFor();
    await this.look("sign-in");
    await keyboard.type(this.mail);
    await keyboard.press("Tab");
    await keyboard.type(this.password);
    await keyboard.press("Enter");
    await this.title("factor.title");
    await this.look("factor-code");
    await keyboard.type(this.phone?.next() ?? "");
    await keyboard.press("Enter");
    await this.isIn();
    await keyboard.type(this.key);
    await keyboard.press("Enter");
    await this.page.getByTestId("account").waitFor({ state: "attached" });
  }

  /** Without the phone. */
  async signInByCode(): Promise<void> {
    await this.enterPassword();
    await this.title("factor.title");
    await this.button("factor.useRecovery").click();
    await this.field("factor.recovery").fill(this.codes[0] ?? "");
    await this.look("factor-recovery");
    await this.button("factor.action").click();
    await this.isIn();
  }

  async signInByPassword(): Promise<void> {
    await this.enterPassword();
    await this.isIn();
  }

  async addPasskey(): Promise<void> {
    this.passkeys = await this.person.context.newCDPSession(this.page);
    await this.passkeys.send("WebAuthn.enable");
    await this.passkeys.send("WebAuthn.addVirtualAuthenticator", {
      options: {
        protocol: "ctap2",
        transport: "internal",
        hasResidentKey: true,
        hasUserVerification: true,
        isUserVerified: true,
        automaticPresenceSimulation: true,
      },
    });
    await this.openSettings("security");
    await this.page.getByTestId("passkey-add").click();
    await this.confirm("confirm-again");
    await this.field("security.passkeyName").fill("Laptop");
    await this.look("passkey-name");
    await this.button("security.passkeyCreate").click();
    await this.keepCodes("recovery-codes-again");
    await this.page
      .getByRole("list", { name: this.say("security.passkeys") })
      .getByText("Laptop")
      .waitFor();
    await this.look("security-passkey");
  }

  async signInByPasskey(): Promise<void> {
    await this.button("signIn.passkey").click();
    await this.isIn();
  }

  async resetPassword(): Promise<void> {
    await this.button("signIn.forgot").click();
    await this.title("reset.title");
    await this.field("reset.email").fill(this.mail);
    await this.look("reset");
    await this.button("reset.action").click();
    await this.title("reset.sentTitle");
    await this.confirmByMail("reset-page", "email.allow");
    this.password = "five lighthouses in the fog";
    await this.field("reset.password").fill(this.password);
    await this.look("reset-password");
    await this.button("reset.finish").click();
    await this.title("reset.doneTitle");
    await this.look("reset-done");
    await this.button("reset.signIn").click();
    await this.title("signIn.title");
  }

  /** Both of what there is, then the recovery key. */
  async signInByPasswordAndPasskey(): Promise<void> {
    await this.enterPassword();
    await this.title("factor.title");
    await this.look("factor-passkey");
    await this.button("factor.passkeyAction").click();
    await this.isIn();
    await this.unlock();
  }

  async makeAppPassword(): Promise<string> {
    await this.openSettings("security");
    await this.page.getByTestId("app-password-add").click();
    await this.field("security.appPasswordName").fill("Old client");
    await this.button("security.appPasswordMake").click();
    await this.confirm("confirm-passkey", true);
    const made = this.page.getByTestId("app-password");
    await made.waitFor();
    await this.look("app-password");
    const password = (await made.textContent()) ?? "";
    await this.button("security.appPasswordDone").click();
    return password;
  }

  /** Asks for all data, downloads it, and finds the own name in it. */
  async takeData(): Promise<void> {
    await this.backToList();
    await this.turnTo("account");
    await this.button("account.exportBegin").click();
    await this.confirm("confirm-export", true);
    await this.page.getByText(this.say("account.exportReady")).waitFor();
    await this.look("export-ready");
    const [archive] = await Promise.all([
      this.page.waitForEvent("download"),
      this.button("account.exportDownload").click(),
    ]);
    expect(archive.suggestedFilename()).toMatch(new RegExp(`${this.person.name}.*\\.zip$`));
    expect((await readFile(await archive.path())).subarray(0, 2).toString()).toBe("PK");
  }

  /** Closes the account, with all that it leaves. */
  async close(): Promise<void> {
    const dialog = this.page.getByRole("dialog");
    await this.button("account.closeAction").click();
    await dialog.getByLabel(this.say("account.closeErase"), { exact: true }).check();
    const type = this.say("account.closeType", { user: `@${this.person.name}:${server.name}` });
    await dialog.getByLabel(type).fill(`@${this.person.name}:${server.name}`);
    await this.look("close");
    await dialog.getByRole("button", { name: this.say("account.closeAction"), exact: true }).click();
    await this.confirm("confirm-close", true);
    await this.title("signIn.title");
    await this.look("closed");
    await this.enterPassword();
    await this.page.getByRole("alert").waitFor();
  }

  oldClient(password = this.password): ReturnType<typeof post> {
    return oldClient(this.person.name, password);
  }

  async resetByAdministrator(): Promise<void> {
    const id = encodeURIComponent(`@${this.person.name}:${server.name}`);
    expect(await post(`/_synapse/admin/v1/users/${id}/reset_2fa`, {}, admin)).toEqual({ status: 200, body: {} });
  }
}

const stories = [
  ["ann", "en", {}],
  ["berta", "de", { viewport: phone, isMobile: true, hasTouch: true }],
] as const;

describe.each(stories.slice(0, long ? 2 : 1))("%s, %s", (name, language, options) => {
  let owner: Owner;

  // What the person saw when something failed says more than the line that failed.
  afterEach(async ({ task }) => {
    if (task.result?.state !== "fail" || owner === undefined) return;
    const file = path.join(tmpdir(), `conclave-e2e-${name}.png`);
    await owner.person.page.screenshot({ path: file }).catch(() => undefined);
    console.log(`${name} saw ${file}\n${owner.person.problems.join("\n")}\n${await server.tail()}`);
  });

  test("an invitation, and a mail, make an account", async () => {
    owner = new Owner(await Person.arrive(browser, name, server.url, language, options), language);
    await owner.signUp(await newInvitation());
  });

  test("an authenticator app is set up, and asked for from then on", async () => {
    await owner.enrolPhone();
    await owner.signOut();
    await owner.signInByPhone();
    expect((await owner.oldClient()).status).toBe(403);
  });

  test("the phone is lost: a recovery code opens once, and an administrator takes the factor away", async () => {
    await owner.openSettings("security");
    await owner.signOut();
    await owner.signInByCode();
    await owner.leave();
    await owner.resetByAdministrator();
    await owner.signInByPassword();
    await owner.unlock();
  });

  test("a passkey opens alone", async () => {
    await owner.addPasskey();
    await owner.signOut();
    await owner.signInByPasskey();
    await owner.leave();
  });

  test("a forgotten password is set anew by mail, and leads around no second factor", async () => {
    await owner.resetPassword();
    await owner.signInByPasswordAndPasskey();
  });

  test("an old client is told of app passwords, and gets in by one", async () => {
    const { status, body } = await owner.oldClient();
    expect([status, body["errcode"], body["error"]]).toEqual([
      403,
      "M_FORBIDDEN",
      `This account has two-factor login. Sign in at ${server.url}, or make an app password there and use it in this client.`,
    ]);
    expect((await owner.oldClient(await owner.makeAppPassword())).status).toBe(200);
  });

  test("all data is downloaded, and the account is closed with what it leaves", async () => {
    await owner.takeData();
    await owner.close();
    expect((await owner.oldClient()).status).toBe(403);
  });

  test("nothing broke in the pages, their policy refused nothing, and everybody can use them", () => {
    expect(owner.person.problems).toEqual([]);
  });
});

test("a server that demands a second factor of all tells an old client of somebody without one how to go on", async () => {
  await server.createUser("carl", rootPassword);
  await server.stop();
  await server.start({ CONCLAVE_AUTH_REQUIRE_2FA: "all", CONCLAVE_AUTH_GRACE_HOURS: "0" });
  const { status, body } = await oldClient("carl", rootPassword);
  expect([status, body["errcode"], body["error"]]).toEqual([
    403,
    "M_FORBIDDEN",
    `This server wants two-factor login from you. Sign in at ${server.url} and set it up; then make an app password there for this client.`,
  ]);
});
