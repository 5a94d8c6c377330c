import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { KeyStore } from "./keystore";
import { deviceDatabase, forgetSession, renewing, savedSession, saveSession, unlessSignedIn } from "./saved";
import { freshBrowser } from "./testing/browser";
import type { Credentials } from "./types";

const first: Credentials = { baseUrl: "https://hs.test", userId: "@ann:hs.test", deviceId: "A1", accessToken: "one" };

beforeEach(() => freshBrowser());
afterEach(() => vi.unstubAllGlobals());

/** Has a session, and something that its device keeps. */
async function kept(credentials: Credentials): Promise<void> {
  await saveSession(credentials);
  const store = await KeyStore.open(deviceDatabase(credentials));
  await store.put("ratchet", { of: credentials.deviceId });
  store.close();
}

async function databases(): Promise<string[]> {
  return (await indexedDB.databases()).map(({ name }) => name ?? "").filter((name) => name.includes("device"));
}

test("a session is forgotten with everything that its device kept", async () => {
  await kept(first);
  await forgetSession(first);
  expect(await databases()).toEqual([]);
  expect(await savedSession()).toBeNull();
});

test("a tab that learns late that its session has ended leaves alone what another tab has opened since", async () => {
  const second = { ...first, userId: "@bob:hs.test", deviceId: "B1", accessToken: "two" };
  await kept(first);
  await kept(second);
  await forgetSession(first);
  expect(await savedSession()).toEqual(second);
  expect(await databases()).toEqual([deviceDatabase(second)]);
});

test("nor does it delete the keys of its device where another tab has signed in to it again", async () => {
  const renewed = { ...first, accessToken: "two" };
  await kept(first);
  await kept(renewed);
  await forgetSession(first);
  expect(await savedSession()).toEqual(renewed);
  expect(await databases()).toEqual([deviceDatabase(first)]);
});

test("a record that cannot be read is no session, and the next one takes its place", async () => {
  await kept(first);
  const request = indexedDB.open("conclave-session");
  const database = await new Promise<IDBDatabase>((resolve) => (request.onsuccess = () => resolve(request.result)));
  const transaction = database.transaction("records", "readwrite");
  transaction.objectStore("records").put({ nonce: new Uint8Array(12), data: new Uint8Array(20) }, "session");
  await new Promise((done) => (transaction.oncomplete = done));
  database.close();
  expect(await savedSession()).toBeNull();
  await kept(first);
  expect(await savedSession()).toEqual(first);
});

test("while a tab signs in again to a device nobody takes it for one that is gone", async () => {
  const renewed = { ...first, accessToken: "two" };
  await kept(first);
  const answer = Promise.withResolvers<void>();
  const signingIn = renewing(async () => {
    await answer.promise; // the server has ended the session of before
    await saveSession(renewed);
  });
  const forgetting = forgetSession(first);
  answer.resolve();
  await signingIn;
  expect(await forgetting).toEqual(renewed);
  expect(await savedSession()).toEqual(renewed);
  expect(await databases()).toEqual([deviceDatabase(first)]);
});

test("what else is kept for a person goes with their last session here", async () => {
  const gone: string[] = [];
  const forget = (userId: string): Promise<void> => unlessSignedIn(userId, async () => void gone.push(userId));
  await kept(first);
  await forget(first.userId);
  await forget("@bob:hs.test");
  await forgetSession(first);
  await forget(first.userId);
  expect(gone).toEqual(["@bob:hs.test", first.userId]);
});
