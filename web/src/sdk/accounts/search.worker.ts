/** Searches beside the page, and says from time to time how far it has come. */
import type { Puzzle } from "./flows";
import { search } from "./search";

const slice = 20_000;

interface Scope {
  onmessage: ((event: MessageEvent<Puzzle>) => void) | null;
  postMessage(message: { tried: number; nonce: string | null }): void;
}

const scope = self as unknown as Scope;

scope.onmessage = ({ data }) => {
  let tried = 0;
  for (;;) {
    const nonce = search(data, tried, slice);
    tried += slice;
    scope.postMessage({ tried, nonce });
    if (nonce !== null) return;
  }
};
