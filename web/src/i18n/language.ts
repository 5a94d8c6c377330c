/** In which language this client speaks. */
import { createInstance } from "i18next";
import { useSyncExternalStore } from "react";
import { en } from "./en";

declare module "i18next" {
  interface CustomTypeOptions {
    resources: { translation: typeof en };
    returnNull: false;
  }
}

/** Each language by its own name: whoever looks for it may read no other. */
export const languages = { en: "English", de: "Deutsch" } as const;
export type Language = keyof typeof languages;

/** Every other language comes when it is wanted. English is there from the start, and steps in where another cannot be had. */
const load: Record<Exclude<Language, "en">, () => Promise<object>> = {
  de: async () => (await import("./de")).de,
};

const i18n = createInstance();
void i18n.init({
  lng: "en",
  fallbackLng: "en",
  resources: { en: { translation: en } },
  initAsync: false,
  // React shows strings as text; escaping them here would show the escapes. Only what turns the direction of a text does not get out of a
  // name into the sentence that it stands in.
  interpolation: { escape: (value) => value.replace(/[\u202a-\u202e\u2066-\u2069]/g, "") },
});

export const t = i18n.t;

const key = "conclave.language";
let current: Language = "en";
const listeners = new Set<() => void>();

function isLanguage(tag: string): tag is Language {
  return Object.hasOwn(languages, tag);
}

/** The language of a tag like "de-AT", if this client speaks it. */
function spoken(tag: string): Language | null {
  const primary = tag.toLowerCase().split("-")[0] ?? "";
  return isLanguage(primary) ? primary : null;
}

/** What the person has chosen, else the first language of the browser that this client speaks, else English. */
export function preferredLanguage(chosen: string | null, wanted: readonly string[]): Language {
  if (chosen !== null && isLanguage(chosen)) return chosen;
  for (const tag of wanted) {
    const language = spoken(tag);
    if (language !== null) return language;
  }
  return "en";
}

/** The tag by which dates and numbers are written: the country is that of the browser where it names one for the language. */
export function localeOf(language: Language, wanted: readonly string[]): string {
  return wanted.find((tag) => spoken(tag) === language) ?? language;
}

export function locale(): string {
  return localeOf(current, typeof navigator === "undefined" ? [] : (navigator.languages ?? []));
}

export function currentLanguage(): Language {
  return current;
}

/** Calls back after each change of the language; gives the way to end that. */
export function onLanguage(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The language, for a component that must be drawn anew when it changes: the outermost one, and whatever is memoised. */
export function useLanguage(): Language {
  return useSyncExternalStore(onLanguage, currentLanguage);
}

async function speak(language: Language): Promise<void> {
  if (language !== "en" && !i18n.hasResourceBundle(language, "translation"))
    i18n.addResourceBundle(language, "translation", await load[language]());
  await i18n.changeLanguage(language);
  current = language;
  document.documentElement.lang = language;
  for (const listener of listeners) listener();
}

/** To be called before the first paint, which waits for nothing more than one small chunk, and for none in English. */
export async function restoreLanguage(): Promise<void> {
  await speak(preferredLanguage(kept(), navigator.languages)).catch(() => speak("en"));
}

function kept(): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // the browser keeps nothing for this page
  }
}

/** Rejects where the language could not be loaded: then nothing has changed. */
export async function setLanguage(language: Language): Promise<void> {
  await speak(language);
  try {
    localStorage.setItem(key, language);
  } catch {
    // Then it holds for as long as the page is there.
  }
}
