/** What a browser has and Node lacks, as far as the sdk needs it: Web Locks; and IndexedDB per profile, to be copied and restored. */
import { IDBFactory, IDBKeyRange } from "fake-indexeddb";
import { vi } from "vitest";

interface Held {
  queue: Promise<unknown>;
  busy: number;
}

/** Web Locks of all tabs of a browser: exclusive, in order. */
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
export async function until(what: string, holds: () => boolean | Promise<boolean>, ms = 15_000): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
