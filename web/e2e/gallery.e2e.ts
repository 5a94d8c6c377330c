/**
 * Every state of the gallery in a real browser, at both sizes, light and dark: nothing may break, log an error or scroll
 * sideways, and axe must find nothing. GALLERY_SHOTS names a folder that takes a picture of each.
 */
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createServer, type ViteDevServer } from "vite";
import { desktop, launch, phone } from "./browser.ts";

const shots = process.env["GALLERY_SHOTS"];
const only = process.env["GALLERY_ONLY"]?.split(",");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

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
  await page.goto(`${base}/gallery`);
  await page.waitForSelector("li a", { timeout: 60_000 });
  names = (await page.locator("li a").allTextContents()).filter((name) => only === undefined || only.includes(name));
  await page.close();
  if (shots !== undefined) await mkdir(shots, { recursive: true });
});

afterAll(async () => {
  await browser.close();
  await vite.close();
});

interface Finding {
  id: string;
  nodes: { html: string; failureSummary?: string }[];
}

async function inspect(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const run = (window as unknown as { axe: { run(o: object): Promise<{ violations: Finding[] }> } }).axe;
    return (
      await run.run({
        resultTypes: ["violations"],
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
      })
    ).violations;
  });
  return violations.map(
    (v) => `${v.id}: ${v.nodes.map((n) => `${n.html.slice(0, 200)} (${n.failureSummary ?? ""})`).join(" | ")}`,
  );
}

test.each([
  ["desktop", "light", desktop],
  ["desktop", "dark", desktop],
  ["phone", "light", phone],
  ["phone", "dark", phone],
] as const)("every state holds on a %s, %s", async (device, colorScheme, viewport) => {
  const context = await browser.newContext({
    viewport,
    colorScheme,
    deviceScaleFactor: device === "phone" ? 2 : 1,
    locale: "en-GB",
    reducedMotion: "reduce",
  });
  const problems: string[] = [];
  const page = await context.newPage();
  let current = "";
  page.on("pageerror", (error) => problems.push(`${current}: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`${current}: ${message.text()}`);
  });
  for (const name of names) {
    current = name;
    await page.goto(`${base}/gallery/${name}`);
    await page.waitForFunction(
      () => (document.getElementById("root")?.childElementCount ?? 0) > 0 && document.fonts.status === "loaded",
    );
    await page.waitForFunction(() => [...document.images].every((image) => image.complete));
    // Two frames: the virtual lists measure in the first and place in the second.
    await page.evaluate(
      () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 60)))),
    );
    if (shots !== undefined) await page.screenshot({ path: path.join(shots, `${name}-${device}-${colorScheme}.png`) });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    if (wide > 0) problems.push(`${name}: scrolls sideways by ${wide}`);
    problems.push(...(await inspect(page)).map((finding) => `${name}: ${finding}`));
  }
  await context.close();
  expect(problems).toEqual([]);
});
