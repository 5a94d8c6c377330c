// @vitest-environment happy-dom
import { act, cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createStore } from "zustand/vanilla";
import { Router } from "wouter";
import { memoryLocation } from "wouter/memory-location";
import { AppView } from "../src/app/AppView";
import "../src/app/ChatView"; // at once, not when it is first shown, or after the modules were reset
import "../src/app/SettingsView";
import { MessageRow } from "../src/features/timeline/MessageRow";
import { fakeChat, fakeRoom, message, alice } from "../src/gallery/fixtures";
import {
  currentLanguage,
  formatDay,
  formatFull,
  formatNames,
  formatPercent,
  formatShort,
  formatSize,
  formatTime,
  restoreLanguage,
  setLanguage,
  t,
} from "../src/i18n";
import { localeOf, preferredLanguage } from "../src/i18n/language";
import { preferLanguage } from "../src/sdk";
import { request } from "../src/sdk/http";
import type { App, Phase } from "../src/stores/app";
import { restoreTheme, setTheme, theme } from "../src/stores/appearance";
import { arrivedLink, forgetLink, watchForLink } from "../src/stores/arrivedLink";
import { createConfirming } from "../src/stores/confirm";
import { fakeSignIn } from "../src/stores/testing/signIn";

beforeEach(async () => {
  await setLanguage("en");
  localStorage.clear();
});
afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

function app(phase: Phase): App {
  const never = (): Promise<never> => new Promise(() => {});
  return {
    phase: createStore<Phase>(() => phase),
    baseUrl: "https://northwind.org",
    server: "northwind.org",
    deviceName: "test",
    confirming: createConfirming(),
    start: never,
    enter: never,
    enrolled: never,
    again: never,
    comeBack: never,
    makeIdentity: never,
    confirmIdentity: never,
    unlock: never,
    signOut: never,
  };
}

test.each([
  [null, ["de-AT", "en"], "de"],
  [null, ["fr-FR", "de", "en"], "de"],
  [null, ["en-GB", "de"], "en"],
  [null, ["fr-FR", "DE-CH"], "de"],
  [null, ["fr-FR"], "en"],
  [null, ["den", "constructor"], "en"],
  [null, [], "en"],
  ["en", ["de-DE"], "en"],
  ["de", ["en-GB"], "de"],
  ["fr", ["de-DE"], "de"],
  ["toString", ["de-DE"], "de"],
] as const)("chosen %j, browser %j: %s", (chosen, wanted, language) => {
  expect(preferredLanguage(chosen, wanted)).toBe(language);
});

test("dates follow the country of the browser, where it speaks the language", () => {
  expect(localeOf("de", ["en-GB", "de-AT"])).toBe("de-AT");
  expect(localeOf("de", ["en-GB"])).toBe("de");
  expect(localeOf("en", ["fr-FR", "en-GB", "en-US"])).toBe("en-GB");
});

test("the choice of the person comes before the browser's, and a choice that cannot be had leaves English", async () => {
  vi.spyOn(navigator, "languages", "get").mockReturnValue(["de-DE", "en"]);
  await restoreLanguage();
  expect([currentLanguage(), document.documentElement.lang]).toEqual(["de", "de"]);
  expect(localStorage.length).toBe(0);
  localStorage.setItem("conclave.language", "en");
  await restoreLanguage();
  expect([currentLanguage(), document.documentElement.lang]).toEqual(["en", "en"]);
});

test("switching on the sign-in page changes the page and keeps what was typed", async () => {
  const user = userEvent.setup();
  render(<AppView app={app({ at: "signedOut", ended: null, signIn: fakeSignIn() })} />);
  await user.type(screen.getByLabelText("Name or e-mail address"), "ann");
  await user.click(screen.getByRole("button", { name: "Deutsch" }));
  expect(await screen.findByRole("heading", { level: 1, name: "Willkommen zurück" })).toBeTruthy();
  expect(document.title).toBe("Willkommen zurück · Conclave");
  expect(screen.getByLabelText<HTMLInputElement>("Name oder E-Mail-Adresse").value).toBe("ann");
  expect(document.activeElement?.textContent).toBe("Deutsch");
  expect(screen.getByRole("button", { name: "Deutsch" }).getAttribute("aria-pressed")).toBe("true");
  expect(screen.getByRole("button", { name: "English" }).lang).toBe("en");
  expect([document.documentElement.lang, localStorage.getItem("conclave.language")]).toEqual(["de", "de"]);
  // What is said about a field was made when this module was loaded, if anything was.
  await user.click(screen.getByRole("button", { name: "Anmelden" }));
  expect(await screen.findByText("Gib dein Passwort ein.")).toBeTruthy();
  await user.click(screen.getByRole("button", { name: "English" }));
  expect(await screen.findByRole("heading", { level: 1, name: "Welcome back" })).toBeTruthy();
});

test("switching in the settings changes the whole client", async () => {
  const user = userEvent.setup();
  const { hook } = memoryLocation({ path: "/settings" });
  render(
    <Router hook={hook}>
      <AppView app={app({ at: "ready", chat: fakeChat() })} />
    </Router>,
  );
  await user.click(await screen.findByRole("radio", { name: "Deutsch" }));
  expect(await screen.findByRole("heading", { level: 1, name: "Einstellungen" })).toBeTruthy();
  expect(screen.getByRole("complementary", { name: "Unterhaltungen" })).toBeTruthy();
  expect(screen.getAllByText("Strg")).toHaveLength(2); // of the list of keys, and beside the search
  expect(document.title).toContain("Einstellungen");
  expect(screen.getByRole("radio", { name: "Deutsch" }).getAttribute("aria-checked")).toBe("true");
});

test("a message that is kept as it is follows the language all the same", async () => {
  const failed = message(alice, 0, "hello", { delivery: "failed" });
  const actions = { reply: vi.fn(), openImage: vi.fn(), jumpTo: vi.fn() };
  render(<MessageRow room={fakeRoom({ summary: null })} message={failed} first last withSender actions={actions} />);
  expect(screen.getByRole("button", { name: "Discard" })).toBeTruthy();
  await act(() => setLanguage("de"));
  expect(screen.getByRole("button", { name: "Verwerfen" })).toBeTruthy();
});

test("plurals, dates, times, sizes and lists are written as the language has it", async () => {
  const at = new Date(2026, 2, 4, 14, 5).getTime();
  const now = new Date(2026, 2, 7, 9, 0).getTime();
  const day = 86_400_000;
  const written = (): string[] => [
    t("rooms.unread", { count: 1 }),
    t("rooms.unread", { count: 2 }),
    formatDay(now, now),
    formatDay(now - day, now),
    formatDay(at, now),
    formatShort(at, now),
    formatShort(at - 30 * day, now),
    formatSize(999),
    formatSize(1_500_000),
    formatSize(25_000),
    formatPercent(65),
    formatNames(["Ann"]),
    formatNames(["Ann", "Bob"]),
    formatNames(["Ann", "Bob", "Carla"]),
    formatNames(["Ann", "Bob", "Carla", "Dmitri"]),
  ];
  vi.spyOn(navigator, "languages", "get").mockReturnValue(["en-GB", "de-DE"]);
  await setLanguage("en");
  const english = written();
  await setLanguage("de");
  const german = written();
  expect(english).toEqual([
    "1 unread message",
    "2 unread messages",
    "Today",
    "Yesterday",
    "Wednesday",
    "Wed",
    "2 Feb",
    "999 bytes",
    "1.5 MB",
    "25 kB",
    "65%",
    "Ann",
    "Ann and Bob",
    "Ann, Bob and Carla",
    "Ann, Bob and 2 more",
  ]);
  expect(german).toEqual([
    "1 ungelesene Nachricht",
    "2 ungelesene Nachrichten",
    "Heute",
    "Gestern",
    "Mittwoch",
    "Mi",
    "2. Feb.",
    "999 Byte",
    "1,5 MB",
    "25 kB",
    "65\u00a0%",
    "Ann",
    "Ann und Bob",
    "Ann, Bob und Carla",
    "Ann, Bob und 2 weitere",
  ]);
  expect(formatDay(at - 30 * day, now)).toBe("Montag, 2. Februar 2026");
  expect(formatFull(at)).toContain("Mittwoch, 4. März 2026");
  expect(formatTime(at)).toMatch(/^0?[12]?[0-9]:05/);
});

test("what the server writes to the person is in the language of the client", async () => {
  const fetched = vi.fn(async (_url: string, _init: RequestInit) => new Response("{}"));
  vi.stubGlobal("fetch", fetched);
  preferLanguage("de");
  await request("https://x.org", "GET", "/");
  expect(new Headers(fetched.mock.calls[0]?.[1].headers).get("Accept-Language")).toBe("de");
});

test("a language that cannot be loaded changes nothing", async () => {
  vi.resetModules();
  vi.doMock("../src/i18n/de", () => Promise.reject(new Error("no connection")));
  const fresh = await import("../src/i18n");
  await expect(fresh.setLanguage("de")).rejects.toThrow();
  expect([fresh.currentLanguage(), fresh.t("close"), localStorage.getItem("conclave.language")]).toEqual([
    "en",
    "Close",
    null,
  ]);
  localStorage.setItem("conclave.language", "de");
  await fresh.restoreLanguage();
  expect([fresh.currentLanguage(), document.documentElement.lang]).toEqual(["en", "en"]);
  vi.doUnmock("../src/i18n/de");
});

test("what turns the direction of a text does not get out of a name", () => {
  const hostile = "Ann\u202e\u2066 gnp.exe";
  expect(t("letIn.asks", { name: hostile })).toBe("“Ann gnp.exe” wants to be signed in to your account");
  // Nor does anything else in a name mean something to the sentence.
  for (const name of ["$t(close)", "{{user}}", "<b>a</b> & 'c'", "$&", "a/b"])
    expect(t("letIn.asks", { name })).toBe(`“${name}” wants to be signed in to your account`);
});

test("a browser that keeps nothing for the page lets it speak, and be dark, all the same", async () => {
  const denied = (): never => {
    throw new DOMException("denied", "SecurityError");
  };
  vi.stubGlobal("localStorage", { getItem: denied, setItem: denied, removeItem: denied });
  vi.stubGlobal("sessionStorage", { getItem: denied, setItem: denied, removeItem: denied });
  vi.spyOn(navigator, "languages", "get").mockReturnValue(["de-AT"]);
  await restoreLanguage();
  expect(currentLanguage()).toBe("de");
  await setLanguage("en");
  expect(currentLanguage()).toBe("en");
  restoreTheme();
  setTheme("dark");
  expect([theme.get(), document.documentElement.dataset["theme"]]).toEqual(["dark", "dark"]);
  setTheme("system");
  history.replaceState(null, "", "/#/link?code=ABCD-EFGH");
  const end = watchForLink();
  expect([arrivedLink.get(), location.hash]).toEqual(["ABCD-EFGH", ""]);
  forgetLink();
  expect(arrivedLink.get()).toBeNull();
  end();
});
