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

/** Deletes the session and everything that its device kept; what another tab has opened since then stays. */
export async function forgetSession(credentials: Credentials): Promise<void> {
  await alone(async () => {
    const saved = await savedSession();
    const later = saved !== null && saved.accessToken !== credentials.accessToken ? saved : null;
    if (later === null) await KeyStore.destroy(database);
    if (later === null || deviceDatabase(later) !== deviceDatabase(credentials))
      await KeyStore.destroy(deviceDatabase(credentials));
  });
}

/** Of two tabs, one that signs out and one that signs in, each looks at what the other has done. */
async function alone(work: () => Promise<void>): Promise<void> {
  await navigator.locks.request("conclave/session", work);
}
