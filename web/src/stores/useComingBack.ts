import { useEffect, useRef } from "react";

/** Coming back by two ways at once is coming back once. */
const pauseMs = 2000;

/** Called when the person comes back to this page from elsewhere, where something may have been done meanwhile. */
export function useComingBack(back: () => void): void {
  const latest = useRef(back);
  useEffect(() => {
    latest.current = back;
  });
  useEffect(() => {
    let last = Date.now();
    const look = (): void => {
      if (document.visibilityState !== "visible" || Date.now() - last < pauseMs) return;
      last = Date.now();
      latest.current();
    };
    document.addEventListener("visibilitychange", look);
    window.addEventListener("focus", look);
    return () => {
      document.removeEventListener("visibilitychange", look);
      window.removeEventListener("focus", look);
    };
  }, []);
}
