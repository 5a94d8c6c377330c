/**
 * There and back to the organization's sign-in. It sends people back with a token in the address that opens a session: it goes out of the address
 * and the history at once. And only whoever has left from this tab comes back to it: otherwise a link with somebody else's token would sign one in
 * as them, unnoticed, to write what they can read.
 */

const key = "conclave.sso";
const keyOfPlace = "conclave.sso.place";
const names = { token: "loginToken", state: "sso" };

/** The address to come back to, which this tab will know again. */
export function leaveFor(): string {
  const state = crypto.randomUUID();
  sessionStorage.setItem(key, state);
  sessionStorage.setItem(keyOfPlace, location.pathname);
  const back = new URL("/", location.origin);
  back.searchParams.set(names.state, state);
  return back.href;
}

/** The token that somebody came back with, once; null where there is none, or none that this tab has asked for. */
export function takeReturn(): string | null {
  const here = new URL(location.href);
  const token = here.searchParams.get(names.token);
  const state = here.searchParams.get(names.state);
  if (token === null && state === null) return null;
  for (const name of Object.values(names)) here.searchParams.delete(name);
  const left = sessionStorage.getItem(key);
  const place = sessionStorage.getItem(keyOfPlace);
  sessionStorage.removeItem(key);
  sessionStorage.removeItem(keyOfPlace);
  const asked = left !== null && state === left;
  // Whoever signs in again to a session that goes on comes back to where they were.
  if (asked && place !== null) here.pathname = place;
  history.replaceState(history.state, "", here.pathname + here.search + here.hash);
  return asked ? token : null;
}
