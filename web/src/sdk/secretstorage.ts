/**
 * Secret storage: the user's private cross-signing keys, kept by the server under a key that it never sees (m.secret_storage.v1.aes-hmac-sha2).
 * The cryptography is matrix-js-sdk's; what is trusted is decided here.
 */
import { decodeRecoveryKey, encodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/recovery-key.js";
import { calculateKeyCheck } from "matrix-js-sdk/lib/secret-storage.js";
import decryptItem from "matrix-js-sdk/lib/utils/decryptAESSecretStorageItem.js";
import encryptItem from "matrix-js-sdk/lib/utils/encryptAESSecretStorageItem.js";
import {
  equalBytes,
  fromBase64,
  isJsonObject,
  randomBytes,
  toBase64,
  utf8,
  type Bytes,
  type JsonObject,
} from "../crypto";
import type { Api } from "./api";

const algorithm = "m.secret_storage.v1.aes-hmac-sha2";
const defaultKey = "m.secret_storage.default_key";
const keyPrefix = "m.secret_storage.key.";

/** A storage key in its two forms. The text is shown to the person once and kept nowhere. */
export interface StorageKey {
  id: string;
  key: Bytes;
  recoveryKey: string;
}

export function createStorageKey(): StorageKey {
  const key = randomBytes(32);
  const recoveryKey = encodeRecoveryKey(key);
  if (!recoveryKey) throw new Error("the recovery key could not be written");
  return { id: toBase64(randomBytes(18)).replaceAll(/[+/]/g, "x"), key, recoveryKey };
}

/** Writes secrets under a new key, and makes it the default last, so that an interrupted set-up leaves the former one in force. */
export async function writeSecrets(api: Api, storage: StorageKey, secrets: Record<string, Bytes>): Promise<void> {
  const { iv, mac } = await calculateKeyCheck(storage.key);
  await api.setAccountData(keyPrefix + storage.id, { algorithm, name: "recovery key", iv, mac });
  for (const [name, secret] of Object.entries(secrets)) {
    const { iv, ciphertext, mac } = await encryptItem(toBase64(secret), storage.key, name);
    const former = (await api.accountData(name)) ?? {};
    const encrypted = isJsonObject(former.encrypted) ? former.encrypted : {};
    await api.setAccountData(name, { encrypted: { ...encrypted, [storage.id]: { iv, ciphertext, mac } } });
  }
  await api.setAccountData(defaultKey, { key: storage.id });
}

/** Opens the secrets with what the person typed. Throws Error("wrong_key") where it is not the key. */
export async function readSecrets(api: Api, recoveryKey: string, names: string[]): Promise<Record<string, Bytes>> {
  let key: Bytes;
  try {
    key = decodeRecoveryKey(recoveryKey);
  } catch {
    throw new Error("wrong_key");
  }
  const id = (await api.accountData(defaultKey))?.key;
  const description = typeof id === "string" ? await api.accountData(keyPrefix + id) : null;
  if (typeof id !== "string" || !description || description.algorithm !== algorithm)
    throw new Error("no_secret_storage");
  await checkKey(description, key);
  const secrets: Record<string, Bytes> = {};
  for (const name of names) {
    const stored = await api.accountData(name);
    const item = isJsonObject(stored?.encrypted) ? stored.encrypted[id] : undefined;
    if (!isJsonObject(item)) throw new Error("no_secret_storage");
    const { iv, ciphertext, mac } = item;
    if (typeof iv !== "string" || typeof ciphertext !== "string" || typeof mac !== "string")
      throw new Error("wrong_key");
    const secret = await decryptItem({ iv, ciphertext, mac }, key, name).catch(() => {
      throw new Error("wrong_key");
    });
    secrets[name] = fromBase64(secret.replace(/=+$/, ""));
  }
  return secrets;
}

/** A server can leave the check out, or change it; the secrets themselves are authenticated, so this only tells a typing error early. */
async function checkKey(description: JsonObject, key: Bytes): Promise<void> {
  if (typeof description.iv !== "string" || typeof description.mac !== "string") return;
  const { mac } = await calculateKeyCheck(key, description.iv);
  if (!equalBytes(utf8(mac.replace(/=+$/, "")), utf8(description.mac.replace(/=+$/, "")))) throw new Error("wrong_key");
}
