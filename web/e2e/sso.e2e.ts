/** Somebody of an organization with a sign-in of its own: to its page and back, and once more after signing out. */
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launch } from "./browser.ts";
import { Helper } from "./helper.ts";
import { Person } from "./person.ts";
import { type Server, startAlone } from "./servers.ts";

const callback = "/_matrix/client/unstable/im.conclave.sso/callback";

interface About {
  issuer: string;
  client_id: string;
  client_secret: string;
  password: string;
}

let server: Server;
let end: () => Promise<void>;
let provider: Helper;
let about: About;
let browser: Browser;

beforeAll(async () => {
  browser = await launch();
  ({ server, end } = await startAlone({ registration: "{mode: closed}" }, async ({ url }) => {
    provider = await Helper.start("./internal/testserver/idp/provide", url + callback, "ann");
    about = provider.first as About;
    return {
      CONCLAVE_OIDC_ISSUER: about.issuer,
      CONCLAVE_OIDC_CLIENT_ID: about.client_id,
      CONCLAVE_OIDC_CLIENT_SECRET: about.client_secret,
      CONCLAVE_OIDC_NAME: "Northwind",
    };
  }));
});

afterAll(async () => {
  await browser?.close();
  await end?.();
  await provider?.close();
});

/** From the client's page to the provider, where nobody is signed in, and back. */
async function throughProvider(page: Page): Promise<void> {
  await page.getByRole("button", { name: /Northwind/ }).click();
  await page.waitForURL(`${about.issuer}/**`);
  await page.locator("[name=username]").fill("ann");
  await page.locator("[name=password]").fill(about.password);
  await page.locator("[type=submit]").click();
  // Our own page says for which client it is before that gets anything.
  await page.waitForURL(`${server.url}/**`);
  await page.locator("form button").first().click();
  await page.waitForURL((url) => url.origin === server.url && !url.pathname.startsWith("/_matrix/"));
}

test("somebody signs in by the organization, and comes back in a second browser", async () => {
  const first = await Person.arrive(browser, "ann", server.url);
  await throughProvider(first.page);
  const key = await first.keepKey();
  await first.page.getByTestId("account").waitFor();
  expect(first.page.url()).not.toMatch(/loginToken|sso=/);

  const second = await Person.arrive(browser, "ann again", server.url);
  await throughProvider(second.page);
  await second.page.getByLabel("Recovery key").fill(key);
  await second.page.getByRole("button", { name: "Unlock", exact: true }).click();
  await second.page.getByTestId("account").waitFor();

  // An address with somebody's token in it signs nobody in who has not asked for it.
  const stranger = await Person.arrive(browser, "stranger", `${server.url}/?loginToken=ccl_nothing&sso=made-up`);
  await stranger.page.getByRole("button", { name: /Northwind/ }).waitFor();
  expect(stranger.page.url()).not.toContain("loginToken");
  for (const person of [first, second, stranger]) expect(person.problems).toEqual([]);
});
