/** What the client and the pages of the server say, so that a test can look for it in either language. */
import { readFileSync } from "node:fs";
import { de } from "../src/i18n/de.ts";
import { en } from "../src/i18n/en.ts";

export type Language = "en" | "de";
export type Say = (key: string, values?: Record<string, string | number>) => string;

/** The sentences of the client by their paths, such as "signIn.action". */
export function texts(language: Language): Say {
  return (key, values = {}) => {
    let found: unknown = language === "en" ? en : de;
    for (const part of key.split(".")) found = (found as Record<string, unknown> | undefined)?.[part];
    if (typeof found !== "string") throw new Error(`the client never says ${key}`);
    return found.replace(/\{\{(\w+)\}\}/g, (_, name: string) => String(values[name] ?? ""));
  };
}

/** The sentences of the server's own pages. */
export function serverTexts(language: Language): Say {
  const file = new URL(`../../clientapi/pages/${language}.json`, import.meta.url);
  const all = JSON.parse(readFileSync(file, "utf8")) as Record<string, string>;
  return (key) => {
    const found = all[key];
    if (found === undefined) throw new Error(`no page of the server says ${key}`);
    return found;
  };
}
