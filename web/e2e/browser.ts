import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

/** The browser of the system: CHROMIUM names another one. */
function executable(): string {
  const found = [
    process.env["CHROMIUM"],
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
  ].find((path) => path !== undefined && path !== "" && existsSync(path));
  if (found === undefined) throw new Error("Chromium is missing: install it, or set CHROMIUM to its path.");
  return found;
}

/** A headless Chromium that speaks to nobody but the pages under test. */
export function launch(args: string[] = []): Promise<Browser> {
  return chromium.launch({
    executablePath: executable(),
    timeout: 120_000, // of a busy machine
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...args,
    ],
  });
}

export const desktop = { width: 1280, height: 800 };
export const phone = { width: 390, height: 844 };
