/** The proof of work that some servers ask for before they make an account: done here, in a worker, so that the page stays quick. */
import type { Puzzle } from "./flows";
import workerUrl from "./search.worker?worker&url";

/** Beyond it the work would take hours: no server of ours asks for as much. */
const mostBits = 30;

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): string };
}

/** The one policy that our Content-Security-Policy names; it lets through the address of this worker and nothing else. */
const policy = (globalThis as { trustedTypes?: TrustedTypes }).trustedTypes?.createPolicy("conclave", {
  createScriptURL(url) {
    if (url !== workerUrl) throw new TypeError("not an address of ours");
    return url;
  },
});

export interface WorkOptions {
  signal: AbortSignal;
  /** How likely it is, from 0 to 1, that it would have been done by now. */
  onProgress(done: number): void;
}

/** Solves a puzzle; gives the nonce that the server wants to see. */
export function solve(puzzle: Puzzle, { signal, onProgress }: WorkOptions): Promise<string> {
  return new Promise((resolve, reject) => {
    if (puzzle.difficulty < 0 || puzzle.difficulty > mostBits) {
      reject(new Error("The server asks for more work than this client does."));
      return;
    }
    signal.throwIfAborted();
    const worker = new Worker(policy?.createScriptURL(workerUrl) ?? workerUrl, { type: "module" });
    const end = (): void => {
      worker.terminate();
      signal.removeEventListener("abort", aborted);
    };
    const aborted = (): void => {
      end();
      reject(signal.reason as Error);
    };
    signal.addEventListener("abort", aborted);
    worker.onmessage = ({ data }: MessageEvent<{ tried: number; nonce: string | null }>) => {
      onProgress(1 - Math.exp(-data.tried / 2 ** puzzle.difficulty));
      if (data.nonce === null) return;
      end();
      resolve(data.nonce);
    };
    worker.onerror = () => {
      end();
      reject(new Error("The work could not be done in this browser."));
    };
    worker.postMessage(puzzle);
  });
}
