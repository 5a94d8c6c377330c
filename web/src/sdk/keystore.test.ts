import { beforeEach, expect, test } from "vitest";
import { utf8 } from "../crypto";
import { KeyStore } from "./keystore";
import { freshBrowser, restore, snapshot } from "./testing/browser";

beforeEach(freshBrowser);

test("keeps records and keys, and gives no key out", async () => {
  const store = await KeyStore.open("d");
  const key = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
  await store.write({ put: [["a/1", { text: "ä" }]], putKeys: [["k", (key as CryptoKeyPair).privateKey]] });
  store.close();
  const again = await KeyStore.open("d");
  expect(await again.get("a/1")).toEqual({ text: "ä" });
  const kept = await again.key("k");
  expect(kept?.extractable).toBe(false);
  await expect(crypto.subtle.exportKey("pkcs8", kept as CryptoKey)).rejects.toThrow();
  expect(await again.list("a/")).toEqual([["a/1", { text: "ä" }]]);
  expect(await again.names("b/")).toEqual([]);
});

test("shows no content to who reads the files, and no record takes another's place", async () => {
  const store = await KeyStore.open("d");
  await store.put("one", { secret: "never in the clear" });
  await store.put("two", { secret: "another" });
  const copy = await snapshot("d");
  const records = copy.get("records") ?? [];
  for (const [, value] of records) {
    const { data } = value as { data: Uint8Array };
    expect(Buffer.from(data).includes(Buffer.from(utf8("never in the clear")))).toBe(false);
  }
  const [one, two] = records;
  copy.set("records", [
    ["one", two?.[1]],
    ["two", one?.[1]],
  ]);
  await restore("d", copy);
  await expect(store.get("one")).rejects.toThrow();
});

test("uses one key where two tabs begin at once", async () => {
  const [a, b] = await Promise.all([KeyStore.open("d"), KeyStore.open("d")]);
  await a.put("x", { from: "a" });
  expect(await b.get("x")).toEqual({ from: "a" });
});

test("changes all of a change or nothing", async () => {
  const store = await KeyStore.open("d");
  const uncloneable = (() => undefined) as unknown as CryptoKey;
  await expect(store.write({ put: [["x", { a: 1 }]], putKeys: [["k", uncloneable]] })).rejects.toThrow();
  expect(await store.get("x")).toBeUndefined();
});

test("is gone after it was destroyed, though another tab has it open", async () => {
  const store = await KeyStore.open("d");
  await store.put("x", { a: 1 });
  await KeyStore.destroy("d");
  const fresh = await KeyStore.open("d");
  expect(await fresh.get("x")).toBeUndefined();
});
