import { useState } from "react";

/** What has the focus now; of an entry of a menu, which is gone when it is pressed, what has opened the menu. */
function holder(): Element | null {
  const here = document.activeElement;
  const opener = here?.closest("[role=menu]")?.getAttribute("aria-labelledby");
  return opener === null || opener === undefined ? here : document.getElementById(opener);
}

function isNowhere(): boolean {
  return (document.activeElement ?? document.body) === document.body;
}

/**
 * For `onCloseAutoFocus` of a dialog that is not opened by a trigger of its own: the focus goes back to where it was when it opened, or, where
 * that is gone, to the heading of the page. What has taken it meanwhile keeps it.
 */
export function useGiveBack(open: boolean): (event: Event) => void {
  const [was, setWas] = useState(false);
  const [from, setFrom] = useState<Element | null>(null);
  // Before anything inside is there, which may take the focus by itself.
  if (was !== open) {
    setWas(open);
    if (open) setFrom(holder());
  }
  return (event) => {
    event.preventDefault();
    if (!isNowhere()) return;
    if (from instanceof HTMLElement) from.focus({ preventScroll: true });
    if (isNowhere()) document.querySelector<HTMLElement>("main h1[tabindex]")?.focus({ preventScroll: true });
  };
}
