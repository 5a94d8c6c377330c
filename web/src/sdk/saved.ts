/** Which session this browser has, kept encrypted, so that a reload needs no password. */
import { KeyStore } from "./keystore";
import type { Credentials } from "./types";

const database = "conclave-session";
const record = "session";

export function deviceDatabase(credentials: Credentials): string {
  return `conclave-device/${encodeURIComponent(credentials.userId)}/${encodeURIComponent(credentials.deviceId)}`;
}

/** Null where there is none, or none that can be read: then one signs in. */
export async function savedSession(): Promise<Credentials | null> {
  const store = await KeyStore.open(database);
  try {
    const saved = await store.get(record).catch(() => undefined);
    const { baseUrl, userId, deviceId, accessToken } = saved ?? {};
    if (typeof baseUrl !== "string" || typeof userId !== "string") return null;
    if (typeof deviceId !== "string" || typeof accessToken !== "string") return null;
    return { baseUrl, userId, deviceId, accessToken };
  } finally {
    store.close();
  }
}

export async function saveSession(credentials: Credentials): Promise<void> {
  await alone(async () => {
    const store = await KeyStore.open(database);
    try {
      await store.put(record, { ...credentials });
    } finally {
      store.close();
    }
  });
}

/**
 * Deletes the session and everything that its device kept; what another tab has opened since then stays. Gives that other session, where there
 * is one.
 */
export async function forgetSession(credentials: Credentials): Promise<Credentials | null> {
  return locked(renewal, "exclusive", () =>
    alone(async () => {
      const saved = await savedSession();
      const later = saved !== null && saved.accessToken !== credentials.accessToken ? saved : null;
      if (later === null) await KeyStore.destroy(database);
      if (later === null || deviceDatabase(later) !== deviceDatabase(credentials))
        await KeyStore.destroy(deviceDatabase(credentials));
      return later;
    }),
  );
}

/**
 * Signs in again to a device that this browser keeps; `work` ends once its new session is saved. The server ends the one of before while the
 * answer with the new one is still on its way: a tab that hears of that end meanwhile waits, before it takes the device for one that is gone.
 */
export function renewing<T>(work: () => Promise<T>): Promise<T> {
  return locked(renewal, "shared", work);
}

/** Deletes something else that was kept for a person, by `work`, unless this browser has a session of theirs; none begins meanwhile. */
export async function unlessSignedIn(userId: string, work: () => Promise<void>): Promise<void> {
  await alone(async () => {
    if ((await savedSession())?.userId !== userId) await work();
  });
}

const renewal = "conclave/renewal";

/** Of two tabs, one that signs out and one that signs in, each looks at what the other has done. */
function alone<T>(work: () => Promise<T>): Promise<T> {
  return locked("conclave/session", "exclusive", work);
}

function locked<T>(name: string, mode: LockMode, work: () => Promise<T>): Promise<T> {
  return navigator.locks.request(name, { mode }, work) as Promise<T>;
}
