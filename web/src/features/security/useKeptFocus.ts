import { useEffect, useRef } from "react";

/** Whoever has removed a row, and with it the button that had the focus, goes on at the heading of the page. */
export function useKeptFocus(rows: number | undefined): void {
  const before = useRef(rows);
  useEffect(() => {
    const fewer = rows !== undefined && before.current !== undefined && rows < before.current;
    before.current = rows;
    if (fewer && (document.activeElement ?? document.body) === document.body)
      document.querySelector<HTMLElement>("main h1[tabindex]")?.focus();
  }, [rows]);
}
