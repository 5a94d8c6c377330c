import { ESLint } from "eslint";
import { expect, test } from "vitest";

/** What the rule of layers says to one import in one file. */
async function verdict(file: string, code: string): Promise<string[]> {
  const eslint = new ESLint({ overrideConfig: { rules: { "@typescript-eslint/no-unused-vars": "off" } } });
  const [result] = await eslint.lintText(code, { filePath: file });
  return (result?.messages ?? []).map((m) => m.ruleId ?? m.message);
}

test.each([
  ["src/features/composer/x.ts", 'export * from "../timeline/Timeline";'],
  ["src/sdk/x.ts", 'import { x } from "../stores/app"; x();'],
  ["src/crypto/x.ts", 'import { x } from "../sdk"; x();'],
  ["src/stores/x.ts", 'import { x } from "../features/rooms/RoomList"; x();'],
  ["src/ui/x.ts", 'export const x = () => import("../stores/app");'],
  ["src/stores/x.ts", 'import { x } from "../app/App"; x();'],
])("%s may not contain %s", async (file, code) => {
  expect(await verdict(file, code)).toEqual(["conclave/layering"]);
});

test("what a layer may import passes", async () => {
  expect(await verdict("src/features/composer/x.ts", 'export * from "../../stores/app"; export * from "./y";')).toEqual(
    [],
  );
  expect(await verdict("src/sdk/x.ts", 'export * from "../crypto";')).toEqual([]);
});

test("no text is made before it is known in which language, and none is kept in an old one", async () => {
  const late =
    'import { t } from "../i18n"; export const s = () => t("close"); export class A { b() { return t("close"); } }';
  expect(await verdict("src/ui/x.ts", late)).toEqual([]);
  expect(await verdict("src/ui/x.ts", 'import { t } from "../i18n"; export const s = { name: t("close") };')).toEqual([
    "conclave/language",
  ]);
  expect(await verdict("src/ui/x.tsx", 'import { memo } from "react"; export const X = memo(() => null);')).toEqual([
    "conclave/language",
  ]);
});

test("no layer of the protocol touches React or the page, and nothing becomes markup", async () => {
  expect(await verdict("src/sdk/x.ts", 'import "react"; document.title = "";')).toEqual([
    "no-restricted-imports",
    "no-restricted-globals",
  ]);
  expect(
    await verdict("src/ui/x.tsx", "export const X = () => <p dangerouslySetInnerHTML={{ __html: '' }} />;"),
  ).toEqual(["no-restricted-syntax"]);
  expect(await verdict("src/ui/x.ts", "export const f = (e: HTMLElement, s: string) => (e.innerHTML = s);")).toEqual([
    "no-restricted-syntax",
  ]);
});
