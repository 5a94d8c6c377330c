import { clsx } from "clsx";
import { CircleAlert } from "lucide-react";
import { t } from "../i18n";

export type TickState = "sending" | "failed" | "sent" | "delivered" | "read";

/**
 * How far an own message has come: a clock, one tick, two ticks, two filled ticks. The state is told by shape, not by
 * colour alone, and in words for a screen reader.
 */
export function Ticks({ state, onAccent }: { state: TickState; onAccent?: boolean }) {
  const label = t(`delivery.${state}`);
  return (
    <span
      role="img"
      aria-label={label}
      title={label}
      data-delivery={state}
      className={clsx(
        "inline-flex shrink-0 items-center",
        state === "failed" ? "text-bad" : onAccent === true ? "text-on-accent-2" : "text-ink-3",
      )}
    >
      {state === "failed" ? <CircleAlert className="size-3.5" /> : <Shape state={state} />}
    </span>
  );
}

function Shape({ state }: { state: Exclude<TickState, "failed"> }) {
  if (state === "sending") {
    return (
      <svg
        width="13"
        height="13"
        viewBox="0 0 16 16"
        fill="none"
        stroke="currentColor"
        strokeWidth="1.5"
        strokeLinecap="round"
      >
        <circle cx="8" cy="8" r="6" strokeDasharray="2.6 2.1" />
        <path d="M8 5v3l2 1.500" />
      </svg>
    );
  }
  if (state === "read") {
    return (
      <svg width="24" height="14" viewBox="0 0 27 16">
        <circle cx="18.500" cy="8" r="7.500" className="fill-current" />
        <circle cx="8" cy="8" r="7.500" className="fill-current" />
        <path d="M8 .5a7.500 7.500 0 0 1 0 15" fill="none" strokeWidth="1.600" className="stroke-(--tick-gap)" />
        <g fill="none" strokeWidth="1.700" strokeLinecap="round" strokeLinejoin="round" className="stroke-(--tick-gap)">
          <path d="m4.800 8.200 2.200 2.200 4-4.600" />
          <path d="m16.200 9.200 1.400 1.200 4-4.600" />
        </g>
      </svg>
    );
  }
  return (
    <svg
      width={state === "delivered" ? 18 : 13}
      height="13"
      viewBox={state === "delivered" ? "0 0 22 16" : "0 0 16 16"}
      fill="none"
      stroke="currentColor"
      strokeWidth="1.700"
      strokeLinecap="round"
      strokeLinejoin="round"
    >
      <path d="m2.500 8.500 3.500 3.500 7-8" />
      {state === "delivered" ? <path d="m10.500 10.800 1.200 1.200 7-8" /> : null}
    </svg>
  );
}
