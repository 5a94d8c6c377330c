import { expect, test } from "vitest";
import { formatShort } from "./format";

test("a date of another year says so", () => {
  const now = new Date(2026, 10, 29, 12).getTime();
  const at = (year: number, month: number, day: number): string =>
    formatShort(new Date(year, month, day).getTime(), now);
  expect(at(2026, 4, 3)).toMatch(/May/);
  expect(at(2026, 4, 3)).not.toMatch(/2026/);
  expect(at(2024, 4, 3)).toMatch(/2024/);
});
