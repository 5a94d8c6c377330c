/** What a browser has and Node lacks, as far as the sdk needs it: Web Locks; and IndexedDB per profile, to be copied and restored. */
import { IDBFactory, IDBKeyRange } from "fake-indexeddb";
import { vi } from "vitest";

interface Held {
  queue: Promise<unknown>;
  busy: number;
}

/** Web Locks of all tabs of a browser, in order. One that could be shared is exclusive too: who waits for it waits for longer, no more. */
export class Locks {
  private readonly held = new Map<string, Held>();

  readonly request = async (name: string, ...rest: unknown[]): Promise<unknown> => {
    const run = rest.at(-1) as (lock: { name: string } | null) => unknown;
    const options = (rest.length > 1 ? rest[0] : {}) as { ifAvailable?: boolean };
    const lock = this.held.get(name) ?? { queue: Promise.resolve(), busy: 0 };
    this.held.set(name, lock);
    if (options.ifAvailable && lock.busy > 0) return run(null);
    lock.busy++;
    const mine = lock.queue.then(() => run({ name }));
    lock.queue = mine.catch(() => undefined);
    try {
      return await mine;
    } finally {
      lock.busy--;
    }
  };
}

/** Gives the globals of a fresh browser. */
export function freshBrowser(): void {
  vi.stubGlobal("indexedDB", new IDBFactory());
  vi.stubGlobal("IDBKeyRange", IDBKeyRange);
  vi.stubGlobal("navigator", { locks: new Locks() });
}

/** Waits until a condition holds; fails with what was waited for. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A copy of a profile's database, as a backup of its directory would be. */
export type Snapshot = Map<string, [IDBValidKey, unknown][]>;

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the database failed"));
  });
}

export async function snapshot(name: string): Promise<Snapshot> {
  const database = await settled(indexedDB.open(name));
  const copy: Snapshot = new Map();
  for (const store of database.objectStoreNames) {
    const from = database.transaction(store).objectStore(store);
    const [keys, values] = await Promise.all([settled(from.getAllKeys()), settled(from.getAll())]);
    copy.set(
      store,
      keys.map((key, i): [IDBValidKey, unknown] => [key, values[i]]),
    );
  }
  database.close();
  return copy;
}

export async function restore(name: string, copy: Snapshot): Promise<void> {
  const database = await settled(indexedDB.open(name));
  for (const [store, entries] of copy) {
    const into = database.transaction(store, "readwrite").objectStore(store);
    await settled(into.clear());
    for (const [key, value] of entries) await settled(into.put(value, key));
  }
  database.close();
}
