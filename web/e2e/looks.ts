/** What is wrong with a page as it stands in a browser, in words. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Finding {
  id: string;
  nodes: { html: string; failureSummary?: string }[];
}

/** What axe finds. */
export async function inspect(page: Page): Promise<string[]> {
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

/** What a finger could miss: anything to press that is less than 44 pixels high or wide. A link in a sentence may be. */
export function smallTargets(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const found: string[] = [];
    for (const element of document.querySelectorAll("button, a[href], input, textarea, summary, [role=menuitem]")) {
      if (!element.checkVisibility({ visibilityProperty: true }) || element.closest("article p, li > a") !== null)
        continue;
      // A field is as large as the frame that it stands in.
      const box = (
        element instanceof HTMLInputElement ? (element.parentElement ?? element) : element
      ).getBoundingClientRect();
      const around = getComputedStyle(element, "::after");
      const width = Math.max(box.width, parseFloat(around.width) || 0);
      const height = Math.max(box.height, parseFloat(around.height) || 0);
      if (width < 43.5 || height < 43.5)
        found.push(`${element.outerHTML.slice(0, 160)} is ${Math.round(width)} by ${Math.round(height)}`);
    }
    return found;
  });
}

/** What the client itself says and does not fit where it stands. What others named may be cut, and says so by dots. */
export function cutTexts(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const found: string[] = [];
    for (const element of document.querySelectorAll<HTMLElement>(
      "button, label, legend, h1, h2, h3, [role=menuitem], [role=radio]",
    )) {
      if (!element.checkVisibility({ visibilityProperty: true }) || element.closest("[dir=auto], .sr-only") !== null)
        continue;
      if (getComputedStyle(element).textOverflow === "ellipsis" || element.querySelector("[dir=auto]") !== null)
        continue;
      const box = element.getBoundingClientRect();
      const contents = document.createRange();
      contents.selectNodeContents(element);
      const inner = contents.getBoundingClientRect();
      const shown = element.outerHTML.slice(0, 160);
      if (inner.left < box.left - 1 || inner.right > box.right + 1 || inner.bottom > box.bottom + 4)
        found.push(`what is in ${shown} is larger than it`);
      if (box.width > 1 && (box.left < -1 || box.right > window.innerWidth + 1)) found.push(`${shown} leaves the page`);
    }
    return found;
  });
}

/** By how many pixels the page scrolls sideways. */
export function sideways(page: Page): Promise<number> {
  return page.evaluate(() => Math.max(0, document.documentElement.scrollWidth - window.innerWidth));
}

/** What can be pressed or typed into, or is a heading, and lies beyond the window with nothing around it that scrolls. */
export function outOfReach(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const found: string[] = [];
    const within = document.querySelector("[role=dialog], [role=alertdialog]") ?? document;
    for (const element of within.querySelectorAll("button, a[href], input, textarea, h1, h2")) {
      if (!element.checkVisibility({ visibilityProperty: true }) || element.closest("[class*=sr-only]") !== null)
        continue;
      const box = element.getBoundingClientRect();
      const inside = box.top >= -1 && box.left >= -1 && box.bottom <= innerHeight + 1 && box.right <= innerWidth + 1;
      let scrolls = inside;
      for (let around = element.parentElement; around !== null && !scrolls; around = around.parentElement)
        scrolls = /auto|scroll/.test(getComputedStyle(around).overflowY) && around.scrollHeight > around.clientHeight;
      if (!scrolls) found.push(`${element.outerHTML.slice(0, 160)} is out of reach`);
    }
    return found;
  });
}
