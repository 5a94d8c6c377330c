/** A device that waits until somebody lets it in by another one: the code that it shows, and how it ends. */
import { createStore, type StoreApi } from "zustand/vanilla";
import { beginLink, type LinkBegun, pollLink, type SigningIn } from "../sdk";
import { describe, errcodeOf, waitOf } from "./failed";

/**
 * `starting`: there is no code yet. `refused`: somebody said no. `over`: the code is used, or too old. `failed`: there is no code, and `failure`
 * says why. `allowed`: the sign-in goes on by itself.
 */
export type LinkingStep = "starting" | "waiting" | "refused" | "over" | "failed" | "allowed";

export interface LinkingState {
  at: LinkingStep;
  /** Of the code that is shown now. */
  code: { typed: string; url: string; expires: number } | null;
  /** One sentence on what does not work; while it waits, it tries again by itself. */
  failure: string | null;
}

export interface Linking {
  readonly state: StoreApi<LinkingState>;
  /** Shows a new code. */
  begin(): Promise<void>;
  /** Asks no more. */
  stop(): void;
}

interface Options {
  baseUrl: string;
  deviceName: string;
  /** Goes on with what the other device has shown. */
  onAllowed(signingIn: SigningIn): Promise<void>;
}

/** The longest wait after errors, in ms. */
const longestPause = 30_000;

export function createLinking({ baseUrl, deviceName, onAllowed }: Options): Linking {
  const state = createStore<LinkingState>(() => ({ at: "starting", code: null, failure: null }));
  /** Ends the one code that is asked about; what comes back later for it counts no more. */
  let current: AbortController | null = null;

  function stop(): void {
    current?.abort();
    current = null;
  }

  async function begin(): Promise<void> {
    stop();
    const mine = new AbortController();
    current = mine;
    state.setState({ at: "starting", code: null, failure: null });
    try {
      const begun = await beginLink(baseUrl, deviceName);
      if (mine.signal.aborted) return;
      const { userCode: typed, url, expires } = begun;
      state.setState({ at: "waiting", code: { typed, url, expires } });
      await wait(begun, mine.signal);
    } catch (error) {
      if (!mine.signal.aborted) state.setState({ at: "failed", code: null, failure: describe(error) });
    }
  }

  /** Asks until there is an answer, or the code is too old. */
  async function wait({ deviceCode, expires, interval }: LinkBegun, signal: AbortSignal): Promise<void> {
    let pause = interval;
    for (;;) {
      await turn(Math.min(pause, expires - Date.now()), expires, signal);
      if (signal.aborted) return;
      if (expires <= Date.now()) return end("over");
      try {
        const answer = await pollLink(baseUrl, deviceCode);
        if (signal.aborted) return;
        if (answer.at === "allowed") {
          end("allowed");
          await onAllowed(answer.signingIn);
          return;
        }
        pause = answer.interval;
        state.setState({ failure: null });
      } catch (error) {
        if (signal.aborted) return;
        const code = errcodeOf(error);
        if (code === "M_FORBIDDEN") return end("refused");
        if (code === "M_NOT_FOUND") return end("over");
        pause = Math.max(waitOf(error) ?? 0, Math.min(pause * 2, longestPause));
        state.setState({ failure: describe(error) });
      }
    }
  }

  function end(at: LinkingStep): void {
    state.setState({ at, code: null, failure: null });
  }

  return { state, begin, stop };
}

/** Passes after a time, and not before the page is seen; a code that is too old, or nobody's any more, is not waited for. */
function turn(ms: number, expires: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    let due = false;
    const look = (): void => {
      if (signal.aborted || expires <= Date.now() || (due && document.visibilityState !== "hidden")) finish();
    };
    const timer = setTimeout(
      () => {
        due = true;
        look();
      },
      Math.max(0, ms),
    );
    const last = setTimeout(look, Math.max(0, expires - Date.now()));
    function finish(): void {
      clearTimeout(timer);
      clearTimeout(last);
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      resolve();
    }
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}
