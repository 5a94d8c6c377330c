import { useCallback, useEffect, useState } from "react";
import { describe } from "./failed";

export interface Loaded<T> {
  /** Null until it is there. What was there stays while it is asked for again. */
  value: T | null;
  /** One sentence on why it could not be had. */
  failure: string | null;
  /** It is being asked for. */
  asking: boolean;
  reload(): void;
}

/** Something that the server is asked for once the component is there, and again after `reload`. */
export function useLoaded<T>(load: () => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ value: T | null; failure: string | null }>({ value: null, failure: null });
  const [asking, setAsking] = useState(true);
  const [round, setRound] = useState(0);
  useEffect(() => {
    let current = true;
    load().then(
      (value) => answered({ value, failure: null }),
      (error: unknown) => answered({ failure: describe(error) }),
    );
    function answered(answer: { value?: T; failure: string | null }): void {
      if (!current) return;
      setState((before) => ({ ...before, ...answer }));
      setAsking(false);
    }
    return () => {
      current = false;
    };
  }, [load, round]);
  const reload = useCallback(() => {
    setState(({ value }) => ({ value, failure: null }));
    setAsking(true);
    setRound((n) => n + 1);
  }, []);
  return { ...state, asking, reload };
}
