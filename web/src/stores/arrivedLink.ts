/**
 * The code of a device that waits to be let in, which somebody has come here with: its QR code leads to `#/link?code=…`. It goes out of the address
 * and the history at once. It is kept for this tab, since whoever is not signed in signs in first, and that may lead elsewhere and back.
 */
import { cell } from "./observable";

const key = "conclave.link";
const most = 40;

const code = cell<string | null>(null);

/** Null where nobody has come with one, or it was dealt with. */
export const arrivedLink = { get: code.get, subscribe: code.subscribe };

export function forgetLink(): void {
  keep(null);
  code.set(null);
}

/** Where the browser keeps nothing for this page, the code is good for as long as the page is there. */
function keep(found: string | null): void {
  try {
    if (found === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, found);
  } catch {
    // As said.
  }
}

function kept(): string | null {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function take(): void {
  if (!/^#\/link(\?|$)/.test(location.hash)) return;
  const found = (new URLSearchParams(location.hash.split("?")[1] ?? "").get("code") ?? "").slice(0, most);
  history.replaceState(history.state, "", location.pathname + location.search);
  if (found === "") return;
  keep(found);
  code.set(found);
}

/** Looks at the address now, and whenever it changes. Gives what ends that. */
export function watchForLink(): () => void {
  code.set(kept());
  take();
  // Before anybody else reads the address.
  window.addEventListener("hashchange", take, { capture: true });
  return () => window.removeEventListener("hashchange", take, { capture: true });
}
