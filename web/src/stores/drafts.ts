/**
 * What somebody began to write, kept over a reload. Drafts are as private as messages: they lie in IndexedDB under a key
 * that cannot be exported, with their room as additional data (sealed-rooms.md, section 8).
 */
import type { Draft } from "./model";
import { type Cell, cell } from "./observable";

export interface DraftStore {
  of(roomId: string): Cell<Draft>;
  has(roomId: string): boolean;
  /** Writes nothing down any more. */
  close(): void;
}

const none: Draft = { text: "", replyTo: null };
const saveAfter = 400;

interface Sealed {
  nonce: Uint8Array<ArrayBuffer>;
  data: ArrayBuffer;
}

function request<T>(of: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    of.onsuccess = () => resolve(of.result);
    of.onerror = () => reject(of.error ?? new Error("IndexedDB failed"));
  });
}

async function openDatabase(name: string): Promise<IDBDatabase> {
  const opening = indexedDB.open(name, 1);
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore("keys");
    opening.result.createObjectStore("drafts");
  };
  const database = await request(opening);
  // Whoever forgets the drafts does not wait for this page, or another one, to be closed.
  database.onversionchange = () => database.close();
  return database;
}

const nameOf = (userId: string): string => `conclave drafts ${userId}`;

/** Deletes what a person began to write in this browser. */
export async function forgetDrafts(userId: string): Promise<void> {
  await request(indexedDB.deleteDatabase(nameOf(userId)));
}

async function keyOf(database: IDBDatabase): Promise<CryptoKey> {
  const known: unknown = await request(database.transaction("keys").objectStore("keys").get("drafts"));
  if (known instanceof CryptoKey) return known;
  const made = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
  // Of two tabs that begin at once the first one's key stands: looking and putting are one transaction.
  const keys = database.transaction("keys", "readwrite").objectStore("keys");
  const first: unknown = await request(keys.get("drafts"));
  if (first instanceof CryptoKey) return first;
  await request(keys.put(made, "drafts"));
  return made;
}

const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

export async function draftStore(userId: string): Promise<DraftStore> {
  const database = await openDatabase(nameOf(userId));
  const key = await keyOf(database);
  const cells = new Map<string, Cell<Draft>>();
  const timers = new Map<string, ReturnType<typeof setTimeout>>();

  async function save(roomId: string, draft: Draft): Promise<void> {
    timers.delete(roomId);
    if (draft.text === "" && draft.replyTo === null) {
      await request(database.transaction("drafts", "readwrite").objectStore("drafts").delete(roomId));
      return;
    }
    const nonce = crypto.getRandomValues(new Uint8Array(12));
    const data = await crypto.subtle.encrypt(
      { name: "AES-GCM", iv: nonce, additionalData: bytes(roomId) },
      key,
      bytes(JSON.stringify(draft)),
    );
    await request(
      database
        .transaction("drafts", "readwrite")
        .objectStore("drafts")
        .put({ nonce, data } satisfies Sealed, roomId),
    );
  }

  async function restore(): Promise<void> {
    const store = database.transaction("drafts").objectStore("drafts");
    const [ids, sealed] = await Promise.all([
      request(store.getAllKeys()),
      request(store.getAll() as IDBRequest<Sealed[]>),
    ]);
    for (const [i, entry] of sealed.entries()) {
      const roomId = String(ids[i]);
      try {
        const clear = await crypto.subtle.decrypt(
          { name: "AES-GCM", iv: entry.nonce, additionalData: bytes(roomId) },
          key,
          entry.data,
        );
        add(roomId, JSON.parse(new TextDecoder().decode(clear)) as Draft);
      } catch {
        // A draft under a key that is gone: nobody can open it any more.
        await request(database.transaction("drafts", "readwrite").objectStore("drafts").delete(roomId));
      }
    }
  }

  function add(roomId: string, draft: Draft): Cell<Draft> {
    const made = cell<Draft>(draft);
    cells.set(roomId, made);
    made.subscribe(() => {
      clearTimeout(timers.get(roomId));
      timers.set(
        roomId,
        setTimeout(() => void save(roomId, made.get()).catch(() => undefined), saveAfter), // it stays in memory
      );
    });
    return made;
  }

  /** What was written within the last moment is not lost with the page. */
  function flush(): void {
    if (document.visibilityState !== "hidden") return;
    for (const [roomId, timer] of timers) {
      clearTimeout(timer);
      const draft = cells.get(roomId)?.get();
      if (draft !== undefined) void save(roomId, draft).catch(() => undefined);
    }
  }

  await restore();
  document.addEventListener("visibilitychange", flush);
  return {
    of: (roomId) => cells.get(roomId) ?? add(roomId, none),
    has: (roomId) => (cells.get(roomId)?.get().text ?? "") !== "",
    close() {
      document.removeEventListener("visibilitychange", flush);
      for (const timer of timers.values()) clearTimeout(timer);
      cells.clear();
      database.close();
    },
  };
}
