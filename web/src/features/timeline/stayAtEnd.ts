/** How near to the end counts as being there: a person who is this close reads the newest message. */
export const nearEnd = 60;

/** A list that has changed its size measures its rows anew and scrolls by itself: it has settled once it rests for this many frames. */
const restFrames = 20;

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
  let frame = 0;
  /** How many frames of rest are still waited for. */
  let settling = 0;

  const distance = (): number => scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;

  function toEnd(): void {
    if (!held || touched || distance() < 1) return;
    scroller.scrollTop = scroller.scrollHeight;
    settling = restFrames;
  }

  function settle(): void {
    toEnd();
    settling--;
    if (settling > 0) frame = requestAnimationFrame(settle);
  }

  function resized(): void {
    if (held && distance() > nearEnd) touched = false; // it was the layout that moved away
    if (settling <= 0) frame = requestAnimationFrame(settle);
    settling = restFrames;
    toEnd();
  }

  function scrolled(): void {
    const up = scroller.scrollTop < top;
    top = scroller.scrollTop;
    if (distance() <= nearEnd) {
      held = true;
      touched = false;
    } else if (touched || (up && settling <= 0)) {
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
      cancelAnimationFrame(frame);
      for (const type of byPerson) scroller.removeEventListener(type, touch);
      scroller.removeEventListener("scroll", scrolled);
    },
  };
}
