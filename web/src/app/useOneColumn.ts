import { useSyncExternalStore } from "react";

/** As in the style sheet: below `md` there is one column, and the list is the page. */
const wide = "(width >= 48rem)";

export function useOneColumn(): boolean {
  return useSyncExternalStore(
    (listener) => {
      const query = matchMedia(wide);
      query.addEventListener("change", listener);
      return () => query.removeEventListener("change", listener);
    },
    () => !matchMedia(wide).matches,
  );
}
