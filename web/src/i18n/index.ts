/** Words, times and sizes as people read them. */
import { createInstance } from "i18next";
import { en } from "./en";

declare module "i18next" {
  interface CustomTypeOptions {
    resources: { translation: typeof en };
    returnNull: false;
  }
}

const i18n = createInstance();
void i18n.init({
  lng: "en",
  resources: { en: { translation: en } },
  initAsync: false,
  // React shows strings as text; escaping them here would show the escapes.
  interpolation: { escapeValue: false },
});

export const t = i18n.t;

const locale = undefined;
const clock = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
const weekday = new Intl.DateTimeFormat("en", { weekday: "long" });
const shortWeekday = new Intl.DateTimeFormat("en", { weekday: "short" });
const dayMonth = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const fullDay = new Intl.DateTimeFormat("en", { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const full = new Intl.DateTimeFormat("en", { dateStyle: "full", timeStyle: "short" });

/** Days between two moments by the calendar of this machine. */
function daysAgo(at: number, now: number): number {
  const midnight = (ms: number): number => new Date(ms).setHours(0, 0, 0, 0);
  return Math.round((midnight(now) - midnight(at)) / 86_400_000);
}

export function formatTime(at: number): string {
  return clock.format(at);
}

export function formatFull(at: number): string {
  return full.format(at);
}

/** For a list: the time of today, then days, then dates. */
export function formatShort(at: number, now: number = Date.now()): string {
  const days = daysAgo(at, now);
  if (days <= 0) return clock.format(at);
  if (days === 1) return t("timeline.yesterday");
  if (days < 7) return shortWeekday.format(at);
  return dayMonth.format(at);
}

export function formatDay(at: number, now: number = Date.now()): string {
  const days = daysAgo(at, now);
  if (days === 0) return t("timeline.today");
  if (days === 1) return t("timeline.yesterday");
  if (days > 1 && days < 7) return weekday.format(at);
  return fullDay.format(at);
}

export function formatSize(bytes: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** "Ann", "Ann and Bob", "Ann, Bob and 3 more". */
export function formatNames(names: string[], most = 3): string {
  const [first = "", second = ""] = names;
  if (names.length === 1) return first;
  if (names.length === 2) return t("room.and", { a: first, b: second });
  if (names.length <= most) {
    return t("room.and", { a: names.slice(0, -1).join(", "), b: names[names.length - 1] ?? "" });
  }
  const shown = names.slice(0, most - 1);
  return t("happening.more", { names: shown.join(", "), count: names.length - shown.length });
}
