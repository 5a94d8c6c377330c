/** Times, sizes and lists, as the language in use writes them. */
import { locale, onLanguage, t } from "./language";

/** Whether the hours of the day are counted to 12 or to 24 is a habit of the person, whatever language is chosen here. */
const { hourCycle } = new Intl.DateTimeFormat(undefined, { hour: "numeric" }).resolvedOptions();

function formats(tag: string) {
  const date = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat(tag, options);
  return {
    clock: date({ timeStyle: "short", hourCycle }),
    weekday: date({ weekday: "long" }),
    shortWeekday: date({ weekday: "short" }),
    dayMonth: date({ day: "numeric", month: "short" }),
    day: date({ dateStyle: "medium" }),
    fullDay: date({ weekday: "long", day: "numeric", month: "long", year: "numeric" }),
    full: date({ dateStyle: "full", timeStyle: "short", hourCycle }),
    percent: new Intl.NumberFormat(tag, { style: "percent" }),
    list: new Intl.ListFormat(tag, { type: "conjunction" }),
    sizes: units.map(([unit, digits]) => {
      const size = (most: number) =>
        new Intl.NumberFormat(tag, {
          style: "unit",
          unit,
          unitDisplay: unit === "byte" ? "long" : "short",
          maximumFractionDigits: most,
          minimumFractionDigits: most,
        });
      return { small: size(digits), large: size(0) };
    }),
  };
}

const units = [
  ["byte", 0],
  ["kilobyte", 1],
  ["megabyte", 1],
  ["gigabyte", 1],
  ["terabyte", 1],
] as const;

let made: ReturnType<typeof formats> | null = null;
onLanguage(() => {
  made = null;
});

function inUse(): ReturnType<typeof formats> {
  return (made ??= formats(locale()));
}

/** Days between two moments by the calendar of this machine. */
function daysAgo(at: number, now: number): number {
  const midnight = (ms: number): number => new Date(ms).setHours(0, 0, 0, 0);
  return Math.round((midnight(now) - midnight(at)) / 86_400_000);
}

export function formatTime(at: number): string {
  return inUse().clock.format(at);
}

export function formatFull(at: number): string {
  return inUse().full.format(at);
}

/** For a list: the time of today, then days, then dates, with the year of another one. */
export function formatShort(at: number, now: number = Date.now()): string {
  const days = daysAgo(at, now);
  if (days <= 0) return formatTime(at);
  if (days === 1) return t("timeline.yesterday");
  if (days < 7) return inUse().shortWeekday.format(at);
  const thisYear = new Date(at).getFullYear() === new Date(now).getFullYear();
  return (thisYear ? inUse().dayMonth : inUse().day).format(at);
}

export function formatDay(at: number, now: number = Date.now()): string {
  const days = daysAgo(at, now);
  if (days === 0) return t("timeline.today");
  if (days === 1) return t("timeline.yesterday");
  return (days > 1 && days < 7 ? inUse().weekday : inUse().fullDay).format(at);
}

/** Of a number up to 100. */
export function formatPercent(value: number): string {
  return inUse().percent.format(value / 100);
}

export function formatSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  const size = inUse().sizes[unit];
  return (value < 10 ? size?.small : size?.large)?.format(value) ?? String(bytes);
}

/** "Ann", "Ann and Bob", "Ann, Bob and 3 more". */
export function formatNames(names: string[], most = 3): string {
  const { list } = inUse();
  if (names.length <= most) return list.format(names);
  const shown = names.slice(0, most - 1);
  return list.format([...shown, t("happening.more", { count: names.length - shown.length })]);
}
