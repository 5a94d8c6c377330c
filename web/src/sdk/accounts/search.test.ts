import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { search } from "./search";

const bitsOf = (text: string): number => {
  const hex = createHash("sha256").update(text).digest("hex");
  const bits = [...hex].map((digit) => parseInt(digit, 16).toString(2).padStart(4, "0")).join("");
  return bits.indexOf("1");
};

test("what is found is what the server looks for, and the first of its kind", () => {
  const puzzle = { seed: "b5mxLyBGpi8jJuKGpDdLxQ", difficulty: 9 };
  const nonce = search(puzzle, 0, 100_000);
  if (nonce === null) throw new Error("nothing was found");
  expect(bitsOf(puzzle.seed + nonce)).toBeGreaterThanOrEqual(9);
  for (let n = 0; n < Number(nonce); n++) expect(bitsOf(puzzle.seed + n)).toBeLessThan(9);
  expect(search(puzzle, 0, Number(nonce))).toBeNull();
  expect(search(puzzle, Number(nonce), 1)).toBe(nonce);
});

test("no bits at all are found at once", () => {
  expect(search({ seed: "", difficulty: 0 }, 7, 1)).toBe("7");
});
