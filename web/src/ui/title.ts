import { useEffect } from "react";

/**
 * What a tab among many has to say, and what a screen reader reads first: how much is unread, and where one is. Whoever comes next need not
 * know where somebody was.
 */
export function useTitle(place: string | null, unread = 0): void {
  useEffect(() => {
    const count = unread > 0 ? `(${unread > 99 ? "99+" : unread}) ` : "";
    document.title = `${count}${place === null ? "" : `${place} · `}Conclave`;
    return () => {
      document.title = "Conclave";
    };
  }, [place, unread]);
}
