import { useEffect, useState } from "react";

/** How long it still is until a moment, in ms and by whole seconds: 0 when it has come, or where there is none. */
export function useWaiting(until: number | null): number {
  const [now, setNow] = useState(() => Date.now());
  const left = until === null ? 0 : Math.max(0, until - now);
  useEffect(() => {
    if (until === null || until <= Date.now()) return;
    const timer = setInterval(() => {
      setNow(Date.now());
      if (until <= Date.now()) clearInterval(timer);
    }, 1000);
    return () => clearInterval(timer);
  }, [until]);
  useEffect(() => setNow(Date.now()), [until]);
  return left;
}

/** That one has to wait is over with the wait, and not said any more; every other failure stands until the next try. */
export function useFailure(of: { failure: string | null; waitUntil: number | null }): {
  failure: string | null;
  waiting: boolean;
} {
  const waiting = useWaiting(of.waitUntil) > 0;
  return { waiting, failure: of.waitUntil !== null && !waiting ? null : of.failure };
}
