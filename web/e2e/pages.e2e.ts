/**
 * The server's own pages in a real browser, in each language: signing in for a client, second factor, passkey, consent,
 * linking a device, looking after an account, and the stages of user-interactive authentication. On every page axe must
 * find nothing and nothing may scroll sideways, at both sizes, light and dark. PAGES_SHOTS names a folder that takes a
 * picture of each.
 */
import { createHash, createHmac, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { desktop, launch, phone } from "./browser.ts";
import { type Server, startAlone } from "./servers.ts";

const shots = process.env["PAGES_SHOTS"];
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const password = "correct horse battery";
const redirect = "https://app.example.org/back";
const accountPath = "/_matrix/client/v3";

let server: Server;
let end: () => Promise<void>;
let browser: Browser;

beforeAll(async () => {
  ({ server, end } = await startAlone(
    {},
    {
      CONCLAVE_REGISTRATION_CHALLENGE: "pow",
      CONCLAVE_REGISTRATION_TERMS:
        "house 1 en https://example.org/en House rules,house 1 de https://example.org/de Hausordnung",
    },
  ));
  browser = await launch();
  if (shots !== undefined) await mkdir(shots, { recursive: true });
});

afterAll(async () => {
  await browser.close();
  await end();
});

type Json = Record<string, unknown>;

async function call(
  method: string,
  where: string,
  body?: Json,
  token?: string,
): Promise<{ status: number; body: Json }> {
  const answer = await fetch(`${server.url}${where}`, {
    method,
    headers: {
      "Content-Type": "application/json",
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Json };
}

async function form(where: string, fields: Record<string, string>): Promise<{ status: number; body: Json }> {
  const answer = await fetch(`${server.url}${where}`, { method: "POST", body: new URLSearchParams(fields) });
  return { status: answer.status, body: (await answer.json()) as Json };
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");

/**
 * The code of an authenticator app (RFC 6238), some steps from now. A server takes each once, and those of the steps before and after the
 * present one as well: never the one before, which is too old if a step ends while it is typed.
 */
function totp(secret: string, offset: number): string {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret].map((letter) => letters.indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + offset));
  const mac = createHmac("sha1", key).update(step).digest();
  const code = mac.readUInt32BE((mac[19] ?? 0) & 15) & 0x7fffffff;
  return String(code % 1_000_000).padStart(6, "0");
}

interface Finding {
  id: string;
  nodes: { html: string; failureSummary?: string }[];
}

/** Looks at the page as everybody may see it. */
class Looker {
  private readonly seen = new Set<string>();
  readonly errors: string[] = [];

  constructor(
    readonly page: Page,
    private readonly label: string,
  ) {
    page.on("pageerror", (error) => this.errors.push(error.message));
    page.on("console", (message) => {
      const refused = message.text().startsWith("Failed to load resource"); // a page that says what was wrong
      if (message.type() === "error" && !refused) this.errors.push(`${page.url()}: ${message.text()}`);
    });
  }

  async at(name: string): Promise<void> {
    if (this.seen.has(name)) return;
    this.seen.add(name);
    await this.page.waitForLoadState(); // a press is over once the next page begins to come, without its style
    await this.page.evaluate(axe);
    for (const [size, viewport] of Object.entries({ desktop, phone })) {
      await this.page.setViewportSize(viewport);
      for (const colorScheme of ["light", "dark"] as const) {
        await this.page.emulateMedia({ colorScheme });
        if (shots !== undefined) {
          const file = `${name}-${this.label}-${size}-${colorScheme}.png`;
          await this.page.screenshot({ path: path.join(shots, file), fullPage: true });
        }
        // What axe looks at is the same at both sizes, but for what a phone hides; colours are not.
        const faults = [...(await this.misplaced()), ...(viewport === phone ? await this.violations() : [])];
        expect.soft(faults, `${name}, ${this.label}, ${size}, ${colorScheme}`).toEqual([]);
      }
    }
    await this.page.emulateMedia({ colorScheme: "light" });
    await this.page.setViewportSize(desktop);
  }

  private violations(): Promise<string[]> {
    return this.page.evaluate(async () => {
      const run = (window as unknown as { axe: { run(o: object): Promise<{ violations: Finding[] }> } }).axe;
      const { violations } = await run.run({
        resultTypes: ["violations"],
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
      });
      return violations.map(
        (v) => `${v.id}: ${v.nodes.map((n) => `${n.html.slice(0, 200)} (${n.failureSummary ?? ""})`).join(" | ")}`,
      );
    });
  }

  private misplaced(): Promise<string[]> {
    return this.page.evaluate(() => {
      const found: string[] = [];
      const root = document.documentElement;
      if (root.scrollWidth > root.clientWidth)
        found.push(`it is ${root.scrollWidth} wide, the window ${root.clientWidth}`);
      const targets = "button, a.button, nav a, input:not([type=hidden], [type=checkbox], [hidden])";
      for (const element of document.querySelectorAll(targets)) {
        const { height } = element.getBoundingClientRect();
        if (height < 44) found.push(`${element.outerHTML.slice(0, 120)} is ${height} pixels high`);
      }
      return found;
    });
  }
}

/** An app that sends people to the server. */
class App {
  private constructor(readonly id: string) {}

  static async register(): Promise<App> {
    const { status, body } = await call("POST", "/oauth2/register", {
      client_uri: "https://app.example.org/",
      client_name: "Example",
      tos_uri: "https://app.example.org/terms",
      policy_uri: "https://app.example.org/privacy",
      redirect_uris: [redirect],
      grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    });
    expect(status).toBe(201);
    return new App(text(body["client_id"]));
  }

  readonly verifier = randomBytes(32).toString("base64url");

  scope(device: string): string {
    return `urn:matrix:client:api:* urn:matrix:client:device:${device}`;
  }

  at(device: string): string {
    const query = new URLSearchParams({
      client_id: this.id,
      redirect_uri: redirect,
      response_type: "code",
      response_mode: "query",
      state: "state",
      scope: this.scope(device),
      code_challenge: createHash("sha256").update(this.verifier).digest("base64url"),
      code_challenge_method: "S256",
    });
    return `${server.url}/oauth2/authorize?${query.toString()}`;
  }

  /** Where the browser has come back to. */
  async answer(page: Page): Promise<URLSearchParams> {
    await page.waitForURL(`${redirect}?*`);
    return new URL(page.url()).searchParams;
  }
}

const press = (page: Page, name: string, value: string) => page.click(`button[name="${name}"][value="${value}"]`);

async function signIn(page: Page, name: string): Promise<void> {
  await page.fill("#name", name);
  await page.fill("#password", password);
  await page.click('form[action="/oauth2/sign_in"] button');
}

const usePasskey = (page: Page) => page.click('form[action="/oauth2/passkey"]:not(#passkey) button');

/** Makes an account through the pages of the stages that stand before it. */
async function register(look: Looker, name: string): Promise<string> {
  const { page } = look;
  const body = { username: name, password, initial_device_display_name: "First" };
  const { body: first } = await call("POST", `${accountPath}/register`, body);
  const session = text(first["session"]);
  const stage = (type: string) =>
    `${server.url}${accountPath}/auth/${type}/fallback/web?session=${encodeURIComponent(session)}`;
  const done = () => page.waitForSelector('script[src*="/done."]', { state: "attached" });
  await page.goto(stage("im.conclave.login.pow"));
  await done();
  await look.at("stage-done");
  await page.goto(stage("m.login.terms"));
  await look.at("stage-terms");
  await page.check("[name=agree]");
  await page.click("form button");
  await done();
  const { status, body: made } = await call("POST", `${accountPath}/register`, { ...body, auth: { session } });
  expect(status, JSON.stringify(made)).toBe(200);
  await page.goto(stage("m.login.terms"));
  await look.at("stage-gone");
  return text(made["access_token"]);
}

/** The smallest picture there is. */
const picture = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

/** Looks after the account: profile, sessions, and what protects it. Gives the authenticator app's key and recovery codes. */
async function care(look: Looker, name: string): Promise<{ secret: string; recovery: string[] }> {
  const { page } = look;
  await page.goto(`${server.url}/oauth2/account?action=org.matrix.profile`);
  await signIn(page, name);
  await page.fill("#displayname", "Anna Example");
  await press(page, "do", "displayname");
  await page.waitForSelector(".notice.good");
  await page.setInputFiles("#avatar", { name: "me.png", mimeType: "image/png", buffer: picture });
  await page.click('form[action="/oauth2/avatar"] button');
  await page.waitForSelector("img.avatar");
  await look.at("account-profile");
  await page.click('nav a[href$="/sessions"]');
  await look.at("account-sessions");
  await page.click('button[value="ask_delete"]');
  await look.at("account-sign-out");
  await page.click('nav a[href$="/security"]');
  await look.at("account-security-bare");
  await press(page, "do", "totp_begin");
  await look.at("account-totp");
  const secret = await page.locator("dd code").innerText();
  await page.fill("#code", "000000");
  await press(page, "do", "totp_confirm");
  await look.at("account-totp-wrong");
  await page.fill("#code", totp(secret, 0));
  await press(page, "do", "totp_confirm");
  await page.waitForSelector(".codes");
  await look.at("account-codes");
  const recovery = await page.locator(".codes li").allInnerTexts();
  expect(recovery).toHaveLength(10);
  await page.click('a[href="/oauth2/account/security"].button');
  await page.fill("#passkey_name", "This laptop");
  await page.evaluate(() => (window.name = "no passkeys")); // a name outlives the page
  await press(page, "do", "passkey_begin");
  await page.waitForSelector("#failed");
  await look.at("account-passkey-unmade");
  expect(await page.locator("#failed").innerText()).toMatch(/cancel\.$|brich ab\.$/); // they are signed in already
  await page.evaluate(() => (window.name = ""));
  await page.click("main > p > a");
  await page.fill("#passkey_name", "This laptop");
  await press(page, "do", "passkey_begin");
  await press(page, "do", "passkey_name");
  await look.at("account-passkey-name");
  await page.fill("#name", "My laptop");
  await press(page, "do", "passkey_rename");
  await page.getByRole("heading", { name: "My laptop" }).waitFor();
  await page.fill("#app_name", "Mail reader");
  await press(page, "do", "app_add");
  await look.at("account-app-password");
  await page.click('a[href="/oauth2/account/security"].button');
  await look.at("account-security");
  await press(page, "do", "app_ask");
  await look.at("account-sure");
  await press(page, "do", "app_remove");
  await page.waitForSelector(".notice.good");
  await takeData(look);
  await page.click('nav a[href$="/reset"]');
  await look.at("account-reset");
  await page.click('nav a[href$="/deactivate"]');
  await page.fill("#typed", "somebody else");
  await press(page, "do", "deactivate");
  await look.at("account-deactivate");
  await page.click('nav a[href$="/security"]');
  await press(page, "do", "leave");
  await look.at("end");
  return { secret, recovery };
}

/** Has all data put together, downloads it, and removes the archive. */
async function takeData(look: Looker): Promise<void> {
  const { page } = look;
  await page.click('nav a[href$="/data"]');
  await look.at("account-data");
  await press(page, "do", "data_begin");
  await look.at("account-data-asked");
  const ready = page.locator('a[href="/oauth2/export"]');
  await expect
    .poll(
      async () => {
        if ((await ready.count()) === 0) await press(page, "do", "data");
        return ready.count();
      },
      { timeout: 60_000 },
    )
    .toBe(1);
  await look.at("account-data-ready");
  const [archive] = await Promise.all([page.waitForEvent("download"), ready.click()]);
  expect(archive.suggestedFilename()).toMatch(/^conclave-.*\.zip$/);
  expect(
    readFileSync(await archive.path())
      .subarray(0, 2)
      .toString(),
  ).toBe("PK");
  await press(page, "do", "data_drop");
  await page.waitForSelector('button[value="data_begin"]');
}

/** Lets an app in with each second factor that there is. */
async function authorize(look: Looker, app: App, name: string, secret: string): Promise<void> {
  const { page } = look;
  await page.goto(app.at("PHONE"));
  await look.at("sign-in");
  await page.fill("#name", name);
  await page.fill("#password", "wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[role=alert]");
  await look.at("sign-in-wrong");
  await signIn(page, name);
  await page.waitForSelector("#code");
  await look.at("factor");
  await page.fill("#code", totp(secret, 1));
  await page.keyboard.press("Enter");
  await page.waitForSelector('button[value="allow"]');
  await look.at("consent");
  await press(page, "decision", "deny");
  expect((await app.answer(page)).get("error")).toBe("access_denied");

  await page.goto(app.at("PHONE"));
  await usePasskey(page); // alone
  await page.waitForSelector('button[value="allow"]');
  await press(page, "decision", "other");
  await signIn(page, name);
  await page.waitForSelector("#code");
  await usePasskey(page); // as the second factor
  await press(page, "decision", "allow");
  const code = text((await app.answer(page)).get("code"));
  const { status, body } = await form("/oauth2/token", {
    grant_type: "authorization_code",
    code,
    redirect_uri: redirect,
    client_id: app.id,
    code_verifier: app.verifier,
  });
  expect(status, JSON.stringify(body)).toBe(200);
  const { body: who } = await call("GET", `${accountPath}/account/whoami`, undefined, text(body["access_token"]));
  expect(who).toMatchObject({ user_id: `@${name}:${server.name}`, device_id: "PHONE" });
}

async function link(look: Looker, app: App, name: string, recovery: string[]): Promise<void> {
  const { page } = look;
  const { body: grant } = await form("/oauth2/device", { client_id: app.id, scope: app.scope("TELEVISION") });
  await page.goto(text(grant["verification_uri"]));
  await page.fill("#user_code", "BBBB-BBBB");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[role=alert]");
  await look.at("link");
  await page.fill("#user_code", text(grant["user_code"]));
  await page.keyboard.press("Enter");
  await signIn(page, name);
  await page.fill("#recovery", recovery[2] ?? "");
  await page.click("form:has(#recovery) button");
  await page.waitForSelector("[name=mine]");
  await look.at("link-consent");
  await page.check("[name=mine]");
  await press(page, "decision", "allow");
  await look.at("linked");
  const { status, body } = await form("/oauth2/token", {
    grant_type: "urn:ietf:params:oauth:grant-type:device_code",
    device_code: text(grant["device_code"]),
    client_id: app.id,
  });
  expect(status, JSON.stringify(body)).toBe(200);
}

/** The stages of a session's owner, single sign-on, the login page of old clients, and what is no use. */
async function others(look: Looker, name: string, token: string, recovery: string[]): Promise<void> {
  const { page } = look;
  const remove = { devices: ["NONE"] };
  const { body } = await call("POST", `${accountPath}/delete_devices`, remove, token);
  const session = text(body["session"]);
  const stage = (type: string) => `${server.url}${accountPath}/auth/${type}/fallback/web?session=${session}`;
  await page.goto(stage("m.login.password"));
  await page.fill("#password", "wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[role=alert]");
  await look.at("stage-password");
  await page.fill("#password", password);
  await page.keyboard.press("Enter");
  await page.waitForSelector('script[src*="/done."]', { state: "attached" });
  await page.goto(stage("im.conclave.second_factor"));
  await look.at("stage-factor");
  await page.fill("#code", recovery[0] ?? "");
  await page.keyboard.press("Enter");
  await page.waitForSelector('script[src*="/done."]', { state: "attached" });
  const { status } = await call("POST", `${accountPath}/delete_devices`, { ...remove, auth: { session } }, token);
  expect(status).toBe(200);

  await page.goto(
    `${server.url}${accountPath}/login/sso/redirect?action=register&redirectUrl=${encodeURIComponent(redirect)}`,
  );
  await look.at("sso-sign-in");
  await usePasskey(page);
  await page.waitForSelector('button[value="other"]');
  await look.at("sso");
  await page.click("form button >> nth=0");
  await page.waitForURL(`${redirect}?loginToken=*`);
  const loginToken = text(new URL(page.url()).searchParams.get("loginToken"));
  const login = await call("POST", `${accountPath}/login`, { type: "m.login.token", token: loginToken });
  expect(login.body["user_id"]).toBe(`@${name}:${server.name}`);

  await page.goto(`${server.url}/_matrix/static/client/login/`);
  await look.at("login-fallback");
  await page.goto(`${server.url}/oauth2/authorize?client_id=none&redirect_uri=${encodeURIComponent(redirect)}`);
  await look.at("error");
}

/** Everything that needs no script works without. */
async function withoutScripts(context: BrowserContext, app: App, name: string, recovery: string[]): Promise<void> {
  const page = await context.newPage();
  await page.goto(app.at("PLAIN"));
  await signIn(page, name);
  await page.fill("#recovery", recovery[1] ?? "");
  await page.click("form:has(#recovery) button");
  await press(page, "decision", "allow");
  expect((await app.answer(page)).has("code")).toBe(true);
}

async function visits(look: Looker, app: App, name: string): Promise<string[]> {
  const token = await register(look, name);
  const { secret, recovery } = await care(look, name);
  await authorize(look, app, name, secret);
  await link(look, app, name, recovery);
  await others(look, name, token, recovery);
  return recovery;
}

const answered = { status: 200, contentType: "text/html", body: "<!doctype html><title>App</title>" };

/** In the short form one language, in the long one both: they have the same pages, and a test in Go compares their texts. */
const locales = ["en", "de"].slice(0, process.env["CONCLAVE_LONG"] === undefined && shots === undefined ? 1 : 2);

test.each(locales)("the pages in %s", async (locale) => {
  const context = await browser.newContext({ locale, reducedMotion: "reduce" });
  context.setDefaultTimeout(45_000);
  await context.route("https://app.example.org/**", (route) => route.fulfill(answered));
  await context.addInitScript(() => {
    if (window.name === "no passkeys") navigator.credentials.create = () => Promise.reject(new Error("no"));
  });
  const page = await context.newPage();
  const cdp = await context.newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2",
      transport: "internal",
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  });
  const look = new Looker(page, locale);
  const name = `anna-${locale}`;
  const app = await App.register();
  const recovery = await visits(look, app, name).catch(async (cause: unknown) => {
    throw new Error(`on the page ${page.url()}: ${await page.locator("body").innerText()}`, { cause });
  });
  expect(await page.locator("html").getAttribute("lang")).toBe(locale);
  expect(look.errors).toEqual([]);
  const plain = await browser.newContext({ locale, javaScriptEnabled: false });
  await plain.route("https://app.example.org/**", (route) => route.fulfill(answered));
  await withoutScripts(plain, app, name, recovery);
  await Promise.all([context.close(), plain.close()]);
});
