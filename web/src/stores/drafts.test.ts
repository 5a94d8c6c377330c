// @vitest-environment happy-dom
import { IDBFactory } from "fake-indexeddb";
import { beforeEach, expect, test, vi } from "vitest";
import { draftStore, forgetDrafts } from "./drafts";

const patience = 20_000; // of a busy machine
const draft = { text: "half a senten", replyTo: null };

beforeEach(() => vi.stubGlobal("indexedDB", new IDBFactory()));

test("a draft is kept per room and outlives the page, and an emptied one is forgotten", async () => {
  const before = await draftStore("@ann:x.org");
  before.of("!a:x.org").set(draft);
  before.of("!b:x.org").set({ ...draft, text: "other" });
  await vi.waitFor(async () => {
    const again = await draftStore("@ann:x.org");
    expect([again.of("!a:x.org").get(), again.of("!b:x.org").get().text]).toEqual([draft, "other"]);
  }, patience);
  before.of("!b:x.org").set({ text: "", replyTo: null });
  await vi.waitFor(async () => expect((await draftStore("@ann:x.org")).has("!b:x.org")).toBe(false), patience);
  expect((await draftStore("@bob:x.org")).has("!a:x.org")).toBe(false);
});

test("a page that is put away writes its drafts down at once", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    (await draftStore("@ann:x.org")).of("!a:x.org").set(draft);
    vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
    document.dispatchEvent(new Event("visibilitychange"));
  } finally {
    vi.useRealTimers();
  }
  await vi.waitFor(async () => expect((await draftStore("@ann:x.org")).has("!a:x.org")).toBe(true), patience);
});

test("what lies in the database cannot be read, nor moved to another room", async () => {
  (await draftStore("@ann:x.org")).of("!a:x.org").set(draft);
  const open = (): Promise<IDBDatabase> =>
    new Promise((done) => {
      const request = indexedDB.open("conclave drafts @ann:x.org");
      request.onsuccess = () => done(request.result);
    });
  const database = await open();
  const read = (): Promise<{ data: ArrayBuffer } | undefined> =>
    new Promise((done) => {
      const request = database.transaction("drafts").objectStore("drafts").get("!a:x.org");
      request.onsuccess = () => done(request.result as { data: ArrayBuffer } | undefined);
    });
  await vi.waitFor(async () => expect(await read()).toBeDefined(), patience);
  const kept = await read();
  expect(new TextDecoder().decode(kept?.data)).not.toContain("senten");
  await new Promise((done) => {
    const request = database.transaction("drafts", "readwrite").objectStore("drafts").put(kept, "!b:x.org");
    request.onsuccess = done;
  });
  expect((await draftStore("@ann:x.org")).has("!b:x.org")).toBe(false);
});

test("a device that was signed out elsewhere keeps no drafts, also while a page holds them", async () => {
  const held = await draftStore("@ann:x.org");
  held.of("!a:x.org").set(draft);
  await vi.waitFor(async () => expect((await draftStore("@ann:x.org")).has("!a:x.org")).toBe(true), patience);
  await forgetDrafts("@ann:x.org");
  expect((await draftStore("@ann:x.org")).has("!a:x.org")).toBe(false);
});

test("of two tabs that begin at once both can be read again", async () => {
  const [one, two] = await Promise.all([draftStore("@ann:x.org"), draftStore("@ann:x.org")]);
  one.of("!a:x.org").set(draft);
  two.of("!b:x.org").set({ ...draft, text: "other" });
  await vi.waitFor(async () => {
    const again = await draftStore("@ann:x.org");
    expect([again.of("!a:x.org").get().text, again.of("!b:x.org").get().text]).toEqual([draft.text, "other"]);
  }, patience);
});
