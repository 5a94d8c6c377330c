/**
 * Every state of the gallery in a real browser, at both sizes, light and dark: nothing may break, log an error or scroll
 * sideways, and axe must find nothing. GALLERY_SHOTS names a folder that takes a picture of each.
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createServer, type ViteDevServer } from "vite";
import { desktop, launch, phone } from "./browser.ts";
import { cutTexts, inspect, outOfReach, sideways, smallTargets } from "./looks.ts";

const shots = process.env["GALLERY_SHOTS"];
const only = process.env["GALLERY_ONLY"]?.split(",");

/** What a busy machine may need, which bundles the client's packages before it shows the first page. */
const patience = 180_000;

let vite: ViteDevServer;
let browser: Browser;
let base: string;
let names: string[];

beforeAll(async () => {
  vite = await createServer({
    root: new URL("..", import.meta.url).pathname,
    server: { port: 0, host: "127.0.0.1", hmr: false },
    logLevel: "error",
  });
  await vite.listen();
  const address = vite.httpServer?.address();
  if (typeof address !== "object" || address === null) throw new Error("the development server has no address");
  base = `http://127.0.0.1:${address.port}`;
  browser = await launch();
  const page = await browser.newPage();
  page.setDefaultTimeout(patience);
  await page.goto(`${base}/gallery`);
  await page.waitForSelector("li a");
  names = (await page.locator("li a").allTextContents()).filter((name) => only === undefined || only.includes(name));
  await page.close();
  if (shots !== undefined) await mkdir(shots, { recursive: true });
});

afterAll(async () => {
  await browser.close();
  await vite.close();
});

/** A virtual list is hidden until it has measured itself: what is looked at before is an empty page. */
async function settled(page: Page): Promise<void> {
  await page.waitForFunction(() => document.querySelector("[data-loading]") === null); // of what comes when it is wanted
  await page.waitForFunction(() =>
    [...document.querySelectorAll("[data-testid=virtuoso-item-list]")].every((list) => {
      const first = list.firstElementChild;
      if (!list.checkVisibility()) return true; // of a column that a phone does not show
      return first !== null && getComputedStyle(first).visibility === "visible" && first.clientHeight > 0;
    }),
  );
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

/** At twice the size nothing is lost: a desktop has as much room then as one of half of it. */
const magnified = { width: desktop.width / 2, height: desktop.height / 2 };

/**
 * In the short form each state is looked at in one of two combinations that have all sizes, schemes and languages between
 * them, in the long one in all of them.
 */
const short = process.env["CONCLAVE_LONG"] === undefined && shots === undefined;
const combinations = (
  [
    ["desktop", "light", "en-GB", desktop],
    ["phone", "dark", "de-DE", phone],
    ["desktop", "dark", "de-DE", desktop],
    ["phone", "light", "en-GB", phone],
    ["desktop", "light", "de-DE", desktop],
    ["phone", "dark", "en-GB", phone],
    ["desktop", "dark", "en-GB", desktop],
    ["phone", "light", "de-DE", phone],
  ] as const
).slice(0, short ? 2 : 8);

test.each(combinations)("every state holds on a %s, %s, %s", async (device, colorScheme, locale, viewport) => {
  const context = await browser.newContext({
    viewport,
    colorScheme,
    deviceScaleFactor: device === "phone" ? 2 : 1,
    isMobile: device === "phone",
    hasTouch: device === "phone",
    locale,
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(patience);
  const problems: string[] = [];
  const page = await context.newPage();
  let current = "";
  page.on("pageerror", (error) => problems.push(`${current}: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`${current}: ${message.text()}`);
  });
  const turn = device === "desktop" ? 0 : 1;
  for (const name of names.filter((_, i) => !short || only !== undefined || i % 2 === turn)) {
    current = name;
    await page.goto(`${base}/gallery/${name}`);
    await page.waitForFunction(
      () => (document.getElementById("root")?.childElementCount ?? 0) > 0 && document.fonts.status === "loaded",
    );
    await page.waitForFunction(() => [...document.images].every((image) => image.complete));
    await settled(page);
    if (shots !== undefined)
      await page.screenshot({ path: path.join(shots, `${name}-${device}-${colorScheme}-${locale.slice(0, 2)}.png`) });
    const wide = await sideways(page);
    if (wide > 0) problems.push(`${name}: scrolls sideways by ${wide}`);
    problems.push(...(await cutTexts(page)).map((finding) => `${name}: ${finding}`));
    if (device === "phone") problems.push(...(await smallTargets(page)).map((finding) => `${name}: ${finding}`));
    problems.push(...(await inspect(page)).map((finding) => `${name}: ${finding}`));
    await page.setViewportSize(magnified);
    await settled(page);
    problems.push(...(await outOfReach(page)).map((finding) => `${name}, magnified: ${finding}`));
    await page.setViewportSize(viewport);
  }
  await context.close();
  expect(problems).toEqual([]);
});

/** How much of the messages lies below what is in sight, once two frames in a row agree on it. */
async function below(page: Page): Promise<number> {
  await page.locator("article[data-message]").first().waitFor();
  await settled(page);
  return page.evaluate(
    () =>
      new Promise<number>((done) => {
        const scroller = document.querySelector("[aria-label=Messages] [data-testid=virtuoso-scroller]");
        if (scroller === null) throw new Error("no messages");
        let before = -1;
        let same = 0;
        const look = (): void => {
          const now = Math.round(scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop);
          same = now === before ? same + 1 : 0;
          before = now;
          if (same >= 20) done(now);
          else requestAnimationFrame(look);
        };
        look();
      }),
  );
}

test("the newest message stays in sight through every change of size, unless one reads further up", async () => {
  const context = await browser.newContext({ viewport: desktop, reducedMotion: "reduce" });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  await page.goto(`${base}/gallery/long`);
  expect(await below(page)).toBeLessThanOrEqual(1);
  for (const size of [phone, desktop, { width: 700, height: 420 }, desktop]) {
    await page.setViewportSize(size);
    expect(await below(page)).toBeLessThanOrEqual(1);
    await page.getByText("1000: the crane").waitFor();
  }
  await page.getByRole("textbox").fill("one\ntwo\nthree\nfour\nfive");
  expect(await below(page)).toBeLessThanOrEqual(1);
  await page.getByText("996: the crane").hover();
  await page.mouse.wheel(0, -900);
  await page.getByRole("button", { name: "Go to the newest message" }).waitFor();
  expect(await below(page)).toBeGreaterThan(500); // of 900, less what rows turned out to be higher than was guessed
  await page.setViewportSize(phone);
  expect(await below(page)).toBeGreaterThan(300);
  await page.getByRole("button", { name: "Go to the newest message" }).click();
  await expect.poll(() => below(page), { timeout: 60_000 }).toBeLessThanOrEqual(1);
  await context.close();
});

test("of a thousand messages only those near the eye are drawn", async () => {
  const context = await browser.newContext({ viewport: desktop, reducedMotion: "reduce" });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  await page.goto(`${base}/gallery/long`);
  expect(await below(page)).toBeLessThanOrEqual(1);
  const rows = (): Promise<number> => page.locator("article[data-message]").count();
  await page.getByText("990: the crane").hover();
  for (let i = 0; i < 15; i++) {
    await page.mouse.wheel(0, -1200);
    expect(await rows()).toBeLessThan(120);
  }
  expect(await below(page)).toBeGreaterThan(10_000);
  await context.close();
});
