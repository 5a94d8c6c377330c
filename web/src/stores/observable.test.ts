import { expect, test, vi } from "vitest";
import { blobCache } from "./attachments";
import { cell, derived } from "./observable";

const turn = (): Promise<void> => new Promise((done) => setTimeout(done));

test("a derived value is computed once for many changes, and only while somebody listens", async () => {
  const compute = vi.fn(() => ({}));
  const value = derived(compute);
  const first = value.get();
  expect(value.get()).toBe(first);
  for (let i = 0; i < 100; i++) value.invalidate();
  await turn();
  expect(compute).toHaveBeenCalledTimes(1);
  const listener = vi.fn();
  const stop = value.subscribe(listener);
  for (let i = 0; i < 100; i++) value.invalidate();
  await turn();
  expect(compute).toHaveBeenCalledTimes(2);
  expect(listener).toHaveBeenCalledTimes(1);
  stop();
  value.invalidate();
  await turn();
  expect(listener).toHaveBeenCalledTimes(1);
});

test("a value that is the same keeps its identity and tells nobody", async () => {
  const source = cell([1, 2]);
  const value = derived(
    () => source.get().map((n) => n > 0),
    (a, b) => a.join() === b.join(),
  );
  const listener = vi.fn();
  value.subscribe(listener);
  const before = value.get();
  source.set([3, 4]);
  value.invalidate();
  await turn();
  expect(value.get()).toBe(before);
  expect(listener).not.toHaveBeenCalled();
});

test("the cache of pictures drops what was used longest ago", async () => {
  const cache = blobCache(100);
  const load = (size: number) => vi.fn(async () => new Blob(["x".repeat(size)]));
  const loads = Array.from({ length: 6 }, () => load(20));
  for (const [i, each] of loads.entries()) await cache.get(`${i}`, each);
  const again = load(20);
  await cache.get("5", again);
  expect(again).not.toHaveBeenCalled();
  await cache.get("0", again);
  expect(again).toHaveBeenCalledTimes(1);
  const huge = load(60);
  await cache.get("huge", huge);
  await cache.get("huge", huge);
  expect(huge).toHaveBeenCalledTimes(2);
});
