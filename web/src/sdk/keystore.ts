/**
 * What a device keeps: records, encrypted at rest, and keys that cannot be taken out. Records are encrypted with a non-extractable AES-GCM key
 * under a random nonce, with their name as associated data, so that a copied profile directory shows no content and no record can take the
 * place of another. CryptoKeys stand beside them as they are: IndexedDB stores their handles.
 */
import { canonical, fromUtf8, parseObject, utf8, type Bytes, type JsonObject } from "../crypto";

const recordStore = "records";
const keyStore = "keys";
const storageKeyName = "storage";
const nonceBytes = 12;

interface Stored {
  nonce: Bytes;
  data: Bytes;
}

/** Several changes that become durable together or not at all. */
export interface Change {
  put?: [name: string, value: JsonObject][];
  remove?: string[];
  putKeys?: [name: string, key: CryptoKey][];
  removeKeys?: string[];
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser's database failed"));
  });
}

function committed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser's database gave up"));
  });
}

function isStored(value: unknown): value is Stored {
  const stored = value as Partial<Stored> | null;
  return stored?.nonce instanceof Uint8Array && stored.data instanceof Uint8Array;
}

/** Joins the parts of a record's name; they come from outside and may hold anything. */
export function recordName(...parts: string[]): string {
  return parts.map(encodeURIComponent).join("/");
}

export class KeyStore {
  private constructor(
    private readonly database: IDBDatabase,
    private readonly storageKey: CryptoKey,
  ) {}

  static async open(name: string): Promise<KeyStore> {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(recordStore);
      request.result.createObjectStore(keyStore);
    };
    const database = await settled(request);
    // Another tab that logs out must be able to delete the database.
    database.onversionchange = () => database.close();
    try {
      return new KeyStore(database, await KeyStore.loadStorageKey(database));
    } catch (error) {
      database.close();
      throw error;
    }
  }

  /** Of two tabs that begin at once the first one's key stands: looking and putting are one transaction. */
  private static async loadStorageKey(database: IDBDatabase): Promise<CryptoKey> {
    const read = database.transaction(keyStore).objectStore(keyStore);
    const known: unknown = await settled(read.get(storageKeyName));
    if (known) return known as CryptoKey;
    const fresh = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
    const transaction = database.transaction(keyStore, "readwrite", { durability: "strict" });
    const done = committed(transaction);
    const store = transaction.objectStore(keyStore);
    const first: unknown = await settled(store.get(storageKeyName));
    if (!first) store.put(fresh, storageKeyName);
    await done;
    return first ? (first as CryptoKey) : fresh;
  }

  static async destroy(name: string): Promise<void> {
    await settled(indexedDB.deleteDatabase(name));
  }

  async get(name: string): Promise<JsonObject | undefined> {
    const stored: unknown = await settled(this.database.transaction(recordStore).objectStore(recordStore).get(name));
    return stored === undefined ? undefined : this.decrypt(name, stored);
  }

  async has(name: string): Promise<boolean> {
    const found = await settled(this.database.transaction(recordStore).objectStore(recordStore).getKey(name));
    return found !== undefined;
  }

  /** The names that begin so, in order. */
  async names(prefix: string): Promise<string[]> {
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    const keys = await settled(this.database.transaction(recordStore).objectStore(recordStore).getAllKeys(range));
    return keys.filter((key) => typeof key === "string");
  }

  async list(prefix: string): Promise<[name: string, value: JsonObject][]> {
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    const store = this.database.transaction(recordStore).objectStore(recordStore);
    const [keys, values] = await Promise.all([settled(store.getAllKeys(range)), settled(store.getAll(range))]);
    return Promise.all(
      keys.map(async (key, i): Promise<[string, JsonObject]> => [
        String(key),
        await this.decrypt(String(key), values[i]),
      ]),
    );
  }

  async key(name: string): Promise<CryptoKey | undefined> {
    const found: unknown = await settled(this.database.transaction(keyStore).objectStore(keyStore).get(name));
    return found as CryptoKey | undefined;
  }

  /**
   * Writes a change as one transaction. It is on the disk when the promise ends, unless the caller says that losing the last moments of
   * such a record does no harm.
   */
  async write(change: Change, durability: "strict" | "relaxed" = "strict"): Promise<void> {
    const puts = await Promise.all(
      (change.put ?? []).map(async ([name, value]): Promise<[string, Stored]> => [
        name,
        await this.encrypt(name, value),
      ]),
    );
    const transaction = this.database.transaction([recordStore, keyStore], "readwrite", { durability });
    const done = committed(transaction);
    const records = transaction.objectStore(recordStore);
    const keys = transaction.objectStore(keyStore);
    try {
      for (const [name, stored] of puts) records.put(stored, name);
      for (const name of change.remove ?? []) records.delete(name);
      for (const [name, key] of change.putKeys ?? []) keys.put(key, name);
      for (const name of change.removeKeys ?? []) keys.delete(name);
    } catch (error) {
      // What was put before would be committed all the same.
      transaction.abort();
      await done.catch(() => undefined);
      throw error;
    }
    await done;
  }

  async put(name: string, value: JsonObject): Promise<void> {
    await this.write({ put: [[name, value]] });
  }

  close(): void {
    this.database.close();
  }

  private async encrypt(name: string, value: JsonObject): Promise<Stored> {
    const nonce = crypto.getRandomValues(new Uint8Array(nonceBytes));
    const parameters = { name: "AES-GCM", iv: nonce, additionalData: utf8(name) };
    return {
      nonce,
      data: new Uint8Array(await crypto.subtle.encrypt(parameters, this.storageKey, utf8(canonical(value)))),
    };
  }

  private async decrypt(name: string, stored: unknown): Promise<JsonObject> {
    if (!isStored(stored)) throw new Error(`the record ${name} is not one of this store`);
    const parameters = { name: "AES-GCM", iv: stored.nonce, additionalData: utf8(name) };
    const plaintext = await crypto.subtle.decrypt(parameters, this.storageKey, stored.data);
    return parseObject(fromUtf8(new Uint8Array(plaintext)));
  }
}
