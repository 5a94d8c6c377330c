import { expect, test } from "vitest";
import { de } from "./de";
import { en } from "./en";
import { enAuth } from "./en-auth";
import { enSecurity } from "./en-security";

/** Every sentence by its path. */
function flat(texts: object, path = ""): Map<string, string> {
  const all = new Map<string, string>();
  for (const [key, value] of Object.entries(texts) as [string, string | object][]) {
    if (typeof value === "string") all.set(path + key, value);
    else for (const [inner, text] of flat(value, `${path}${key}.`)) all.set(inner, text);
  }
  return all;
}

const english = flat(en);
const german = flat(de);

/** Words that are the same in both languages. Whatever else is equal was forgotten. */
const same = new Set([
  "keys.esc",
  "signUp.name",
  "factor.totp",
  "members.admin",
  "settings.system",
  "confirm.code",
  "security.passkeys",
  "security.passkeyName",
  // Made of what others wrote, and nothing else.
  "timeline.by",
  "timeline.announced",
]);

const placeholders = (text: string): string[] => [...new Set(text.match(/\{\{[^}]*\}\}/g))].sort();

test("both dictionaries have the same keys, also where parts are spread in", () => {
  expect([...german.keys()].sort()).toEqual([...english.keys()].sort());
});

test("no part hides what another has under the same key", () => {
  for (const part of [enAuth, enSecurity])
    for (const [key, texts] of Object.entries(part)) expect(en).toHaveProperty(key, texts);
});

test("nothing is left untranslated, and what is equal is equal on purpose", () => {
  const equal = [...english].filter(([key, text]) => german.get(key) === text).map(([key]) => key);
  expect(equal.sort()).toEqual([...same].sort());
});

test("a translation holds what its original holds", () => {
  for (const [key, text] of english)
    expect({ [key]: placeholders(german.get(key) ?? "") }).toEqual({ [key]: placeholders(text) });
});

test("every plural has all forms that both languages have", () => {
  const forms = new Intl.PluralRules("de").resolvedOptions().pluralCategories.sort();
  expect(forms).toEqual(new Intl.PluralRules("en").resolvedOptions().pluralCategories.sort());
  const counted = [...english.keys()].filter((key) => key.endsWith("_other")).map((key) => key.slice(0, -6));
  expect(counted.length).toBeGreaterThan(3);
  for (const key of counted)
    for (const form of forms) expect(german.has(`${key}_${form}`) && english.has(`${key}_${form}`)).toBe(true);
});

test("the signs are those of the language", () => {
  for (const [key, text] of [...english, ...german]) {
    expect({ [key]: /"|\.\.\.|[^_] - |--| {2}|^\s|\s$|\u2014/.exec(text)?.[0] }).toEqual({ [key]: undefined });
  }
  for (const [key, text] of german) {
    const quotes = text.match(/[„“”‚‘«»]/g) ?? [];
    expect({ [key]: quotes.filter((_, i) => i % 2 === 0).every((quote) => quote === "„" || quote === "‚") }).toEqual({
      [key]: true,
    });
    expect({ [key]: /“[^„]*“|”|['’](?!s\b)/.exec(text)?.[0] }).toEqual({ [key]: undefined });
    // A number stays with what it counts, and an abbreviation in one piece.
    expect({ [key]: /\d [A-ZÄÖÜ]|\b[a-z]\. [a-zA-Z]\.|\b[a-z]\.[A-Za-z]\./.exec(text)?.[0] }).toEqual({
      [key]: undefined,
    });
    // "Du", in small letters within a sentence, and never "Sie".
    expect({
      [key]: /(?<![.:!?…„] |^)\b(Ihnen|Ihr(?:e[mnrs]?)?|Du|Dich|Dir|Dein\w*)\b/.exec(text)?.[0],
    }).toEqual({
      [key]: undefined,
    });
  }
});
