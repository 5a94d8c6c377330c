import { expect, test } from "vitest";
import { code } from "../e2e/otp.ts";

// RFC 6238, appendix B, the last six of its eight digits.
test.each([
  [59, "287082"],
  [1111111109, "081804"],
  [2000000000, "279037"],
])("the code at %i", (seconds, wanted) => {
  expect(code("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", Math.floor(seconds / 30))).toBe(wanted);
});
