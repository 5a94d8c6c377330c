import type { Observable } from "../sdk";

/** A value that its owner sets. */
export interface Cell<T> extends Observable<T> {
  set(value: T): void;
}

export function cell<T>(initial: T): Cell<T> {
  let value = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * A value computed anew after `invalidate`, at most once per turn of the event loop however many events ask for it:
 * a sync brings hundreds. While nobody listens nothing is computed.
 */
export interface Derived<T> extends Observable<T> {
  invalidate(): void;
}

export function derived<T>(compute: () => T, same: (a: T, b: T) => boolean = Object.is): Derived<T> {
  const listeners = new Set<() => void>();
  let value: T | undefined;
  let fresh = false;
  let scheduled = false;
  function get(): T {
    if (!fresh) {
      const next = compute();
      if (value === undefined || !same(value, next)) value = next;
      fresh = true;
    }
    return value as T;
  }
  return {
    get,
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    invalidate() {
      if (scheduled) return;
      scheduled = true;
      queueMicrotask(() => {
        scheduled = false;
        const before = value;
        fresh = false;
        if (listeners.size === 0 || Object.is(get(), before)) return;
        for (const listener of [...listeners]) listener();
      });
    },
  };
}
