// @vitest-environment happy-dom
import { afterAll, beforeAll, expect, test } from "vitest";
import { setLanguage } from "../i18n";
import { ApiError, Cancelled } from "../sdk";
import { describe } from "./failed";

beforeAll(() => setLanguage("de"));
afterAll(() => setLanguage("en"));

const english = "Something in English.";
const refused = (status: number, errcode: string): string =>
  describe(new ApiError(status, { errcode, error: english }));

test.each([
  [403, "M_FORBIDDEN", "Das darfst du hier nicht."],
  [404, "M_NOT_FOUND", "Das gibt es hier nicht oder nicht mehr."],
  [404, "M_UNRECOGNIZED", "Dieser Server kann das nicht."],
  [401, "M_UNKNOWN_TOKEN", "Deine Sitzung ist beendet. Melde dich wieder an."],
  [400, "M_THREEPID_IN_USE", "Diese Adresse gehört schon zu einem Konto."],
  [400, "M_THREEPID_AUTH_FAILED", "Der Link in der Mail wurde noch nicht geöffnet."],
  [400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "Dieser Server verschickt keine Mails."],
  [400, "M_SESSION_EXPIRED", "Der Link in der Mail ist inzwischen zu alt. Lass dir noch eine schicken."],
  [500, "M_UNKNOWN", "Das hat nicht geklappt: Der Server hat ein Problem. Versuche es später noch einmal."],
  [200, "M_UNKNOWN", "Das hat nicht geklappt: Der Server hat ein Problem. Versuche es später noch einmal."],
  [0, "M_UNKNOWN", "Der Server ist nicht erreichbar. Prüfe deine Verbindung und versuche es noch einmal."],
])("%i %s is said whole, in the language of the person", (status, errcode, sentence) => {
  expect(refused(status, errcode)).toBe(sentence);
});

test("what only the server's own words say is quoted as its words", () => {
  const quoted = "Das hat nicht geklappt. Der Server schreibt: „Something in English.“";
  expect(refused(400, "M_INVALID_PARAM")).toBe(quoted);
  expect(refused(502, "M_UNKNOWN")).toBe(quoted); // the directory of the organization, which the server has asked
  const ofSdk = { name: "MatrixError", errcode: "M_BAD_ALIAS", httpStatus: 409, data: { error: english } };
  expect(describe(Object.assign(new Error("MatrixError: [409] Something"), ofSdk))).toBe(quoted);
});

test("a proxy that answers without words is none to quote", () => {
  expect(describe(new ApiError(502, {}))).toContain("Der Server hat ein Problem");
  expect(describe(new ApiError(404, {}))).toContain("Der Server hat ein Problem");
});

test("not to confirm, or not to be able to, is said as well", () => {
  expect(describe(new Cancelled())).toBe("Es wurde nicht bestätigt.");
  expect(describe(new Error("confirmation_impossible"))).toContain("Dein Server verlangt eine Bestätigung");
  expect(describe(new Error("no_secret_storage"))).toContain("Auf dem Server liegt nichts");
});

test("a browser that keeps nothing for the page, or has no room left, is said to be one", () => {
  for (const name of ["SecurityError", "QuotaExceededError", "UnknownError"])
    expect(describe(new DOMException("Something in English.", name))).toContain("Dieser Browser lässt die Seite nicht");
});
