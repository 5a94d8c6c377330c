import { useCallback, useEffect, useState } from "react";
import { describe } from "./failed";

export interface Loaded<T> {
  /** Null until it is there. What was there stays while it is asked for again. */
  value: T | null;
  /** One sentence on why it could not be had. */
  failure: string | null;
  reload(): void;
}

/** Something that the server is asked for once the component is there, and again after `reload`. */
export function useLoaded<T>(load: () => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ value: T | null; failure: string | null }>({ value: null, failure: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let current = true;
    load().then(
      (value) => current && setState({ value, failure: null }),
      (error: unknown) => current && setState(({ value }) => ({ value, failure: describe(error) })),
    );
    return () => {
      current = false;
    };
  }, [load, round]);
  const reload = useCallback(() => {
    setState(({ value }) => ({ value, failure: null }));
    setRound((n) => n + 1);
  }, []);
  return { ...state, reload };
}
