/** How near to the end counts as being there: a person who is this close reads the newest message. */
export const nearEnd = 60;

/** A list that settles after a change of size scrolls by itself for about this long. */
const settleMs = 250;

export interface StayAtEnd {
  /** Whether the newest message is held in sight. */
  held(): boolean;
  /** The end is in sight, however the list came there. */
  hold(): void;
  /** The person goes somewhere else in the list: what changes its size no longer matters. */
  release(): void;
  stop(): void;
}

/**
 * Holds the end of a scrolled list in sight while its size, or that of what stands in it, changes: a window that is made
 * narrower, a keyboard that opens, a composer that grows, a picture that arrives. Only the person lets go of the end, by
 * scrolling away from it; a scroll that a change of size brought about does not.
 */
export function stayAtEnd(scroller: HTMLElement, atEnd: boolean): StayAtEnd {
  let held = atEnd;
  let touched = false;
  let top = scroller.scrollTop;
  let resizedAt = performance.now();

  const distance = (): number => scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;

  function toEnd(): void {
    scroller.scrollTop = scroller.scrollHeight;
  }

  function resized(): void {
    resizedAt = performance.now();
    if (held && distance() > 0) toEnd();
  }

  function scrolled(): void {
    const up = scroller.scrollTop < top;
    top = scroller.scrollTop;
    const settling = performance.now() - resizedAt <= settleMs;
    if (held && !touched && settling) {
      // The list puts rows that it has just measured where they were: after that, the end may be a line further down.
      if (distance() > 0) toEnd();
    } else if (distance() <= nearEnd) {
      held = true;
      touched = false;
    } else if (touched || (up && !settling)) {
      held = false;
    }
  }

  const touch = (): void => {
    touched = true;
  };
  const byPerson = ["wheel", "touchmove", "keydown", "pointerdown"] as const;
  for (const type of byPerson) scroller.addEventListener(type, touch, { passive: true });
  scroller.addEventListener("scroll", scrolled, { passive: true });
  const sizes = new ResizeObserver(resized);
  sizes.observe(scroller);
  for (const part of scroller.firstElementChild?.children ?? []) sizes.observe(part);
  return {
    held: () => held,
    hold() {
      held = true;
      touched = false;
    },
    release() {
      held = false;
    },
    stop() {
      sizes.disconnect();
      for (const type of byPerson) scroller.removeEventListener(type, touch);
      scroller.removeEventListener("scroll", scrolled);
    },
  };
}
