/** One device is let in by another one, as the person meets it who holds both: by the address of the QR code, before and after signing in. */
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { launch, phone } from "./browser.ts";
import { Person } from "./person.ts";
import { type Server, startAlone } from "./servers.ts";

const password = "four harbour cranes at dawn";
let server: Server;
let end: () => Promise<void>;
let browser: Browser;

const press = (page: Page, name: string): Promise<void> => page.getByRole("button", { name, exact: true }).click();

/** A device that shows a code. */
async function waiting(name: string): Promise<{ device: Person; code: string }> {
  const device = await Person.arrive(browser, name, server.url, "en", { viewport: phone });
  await press(device.page, "Sign in with another device");
  await device.page.getByRole("img", { name: /QR code/ }).waitFor();
  return { device, code: (await device.page.getByTestId("user-code").textContent()) ?? "" };
}

// Each step of it is tested by itself in the short form.
describe.skipIf(process.env["CONCLAVE_LONG"] === undefined)("somebody with two devices", () => {
  beforeAll(async () => {
    browser = await launch();
    ({ server, end } = await startAlone({}));
  });

  afterAll(async () => {
    await browser?.close();
    await end?.();
  });

  test("a device is let in after a confirmation, another one is refused", async () => {
    const ann = await Person.arrive(browser, "ann", server.url);
    const key = await ann.register(password);
    const first = await waiting("first");
    await ann.page.goto(`${server.url}/#/link?code=${first.code}`);
    await ann.page.getByText(/Only let in a device that you hold in your hands/).waitFor();
    expect(ann.page.url()).not.toContain(first.code);
    await press(ann.page, "Let it in");
    await ann.page.getByLabel("Password", { exact: true }).fill(password);
    await press(ann.page, "Confirm");
    await ann.page
      .getByText(/ is let in$/)
      .first() // said twice while it is read out
      .waitFor();
    await first.device.page.getByLabel("Recovery key").fill(key);
    await press(first.device.page, "Unlock");
    await first.device.page.getByTestId("account").waitFor();
    expect(first.device.page.url()).not.toContain("#");

    // Whoever scans it where nobody is signed in signs in first.
    const second = await waiting("second");
    const other = await Person.arrive(browser, "other", `${server.url}/#/link?code=${second.code}`);
    await other.page.getByText(/A device waits to be let in/).waitFor();
    await other.page.getByLabel("Name or e-mail address").fill("ann");
    await other.page.getByLabel("Password", { exact: true }).fill(password);
    await press(other.page, "Sign in");
    await other.page.getByLabel("Recovery key").fill(key);
    await press(other.page, "Unlock");
    await press(other.page, "Refuse");
    await second.device.page.getByText(/you were not let in/).waitFor();
    await press(second.device.page, "Show a new code");
    await second.device.page.getByTestId("user-code").waitFor();
    for (const person of [ann, first.device, second.device, other]) expect(person.problems).toEqual([]);
  });
});
