/**
 * Looks again and again for something that happens elsewhere, such as a link that is opened in another tab: from time to time while the page is
 * in sight, at once when somebody comes back to it, never while it is hidden, and not for ever.
 */
export interface WatchOptions {
  everyMs: number;
  /** When to give up, in ms. */
  until: number;
  /** Says how long to wait before the next look, where not the usual time. */
  look(): Promise<number | void>;
  onOver(): void;
}

/** Coming back twice within this time is one return. */
const shortestMs = 2_000;

/** Begins to watch; gives the way to end it. */
export function watch({ everyMs, until, look, onOver }: WatchOptions): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ended = false;
  let looking = false;
  let earliest = 0;

  function plan(ms: number): void {
    clearTimeout(timer);
    if (!ended) timer = setTimeout(() => void now(), ms);
  }

  async function now(): Promise<void> {
    if (ended || looking) return;
    if (document.visibilityState === "hidden") return; // coming back begins anew
    const early = earliest - Date.now();
    if (early > 0) return plan(early);
    // Whoever comes back late may have done it in time: there is a last look.
    const last = Date.now() >= until;
    looking = true;
    let wait = everyMs;
    try {
      wait = (await look()) ?? everyMs;
    } catch {
      // The next look may have more luck.
    }
    looking = false;
    if (ended) return;
    if (last) {
      stop();
      onOver();
      return;
    }
    earliest = Date.now() + (wait === everyMs ? shortestMs : wait);
    plan(wait);
  }

  const back = (): void => void now();

  function stop(): void {
    ended = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", back);
    window.removeEventListener("focus", back);
  }

  document.addEventListener("visibilitychange", back);
  window.addEventListener("focus", back);
  plan(everyMs);
  return stop;
}
