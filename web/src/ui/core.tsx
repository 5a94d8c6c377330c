import { clsx } from "clsx";
import type { ButtonHTMLAttributes, MouseEvent, ReactNode, Ref } from "react";

const variants = {
  primary: "bg-accent text-on-accent hover:bg-accent-hover disabled:hover:bg-accent",
  secondary: "bg-raised text-ink border border-line-strong/40 hover:bg-hover disabled:hover:bg-raised",
  quiet: "text-ink-2 hover:bg-hover hover:text-ink",
  danger: "bg-bad-solid text-white hover:brightness-110",
};

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  variant?: keyof typeof variants;
  size?: "small" | "medium" | "large";
  /** What it began is under way; the button keeps its width and the focus, and takes no second press. */
  busy?: boolean;
  ref?: Ref<HTMLButtonElement>;
}

/** Nothing is sent, nothing begins. */
function stop(event: MouseEvent): void {
  event.preventDefault();
}

export function Button({
  variant = "secondary",
  size = "medium",
  busy,
  className,
  children,
  disabled,
  onClick,
  "aria-disabled": off,
  ...rest
}: ButtonProps) {
  const waits = busy === true || off === true;
  return (
    <button
      type="button"
      {...rest}
      // A browser takes the focus from what is disabled, and whoever goes by keys begins at the top of the page.
      disabled={disabled === true && !waits}
      aria-disabled={waits ? true : undefined}
      aria-busy={busy === true ? true : undefined}
      onClick={waits ? stop : onClick}
      className={clsx(
        "inline-flex shrink-0 items-center justify-center gap-2 rounded-lg font-medium whitespace-nowrap transition-colors select-none disabled:opacity-55 aria-disabled:pointer-events-none aria-disabled:opacity-55",
        size === "small" && "touch h-8 px-3 text-[13px]",
        size === "medium" && "h-9 px-3.5 text-sm pointer-coarse:h-11",
        size === "large" && "h-11 px-5 text-[15px]",
        variants[variant],
        className,
      )}
    >
      {busy === true ? <Dots /> : null}
      {children}
    </button>
  );
}

/** Three dots that take turns: work is under way. */
export function Dots() {
  return (
    <span aria-hidden className="inline-flex items-center gap-[3px]">
      {[0, 1, 2].map((i) => (
        <span
          key={i}
          className="animate-dot size-1 rounded-full bg-current"
          style={{ animationDelay: `${i * 150}ms` }}
        />
      ))}
    </span>
  );
}

/** Pairs of colours on which white text is readable. */
const tints = ["#5b6ad0", "#2f7d6b", "#a5527f", "#9a5b1f", "#3b78a8", "#7b5cb0", "#a34a45", "#56732f"];

/** The same colour for the same name, on every device. */
function tint(seed: string): string {
  let hash = 0x811c9dc5;
  for (const char of seed) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193);
  hash = (hash ^ (hash >>> 15)) >>> 0;
  return tints[hash % tints.length] ?? "#5b6ad0";
}

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** The first sign of a word as people see it: a family of four is one. */
function firstOf(word: string): string {
  for (const { segment } of graphemes.segment(word)) return segment;
  return "";
}

export function initials(name: string): string {
  const words = name
    .replace(/^@([^:]+):.*$/, "$1")
    .replace(/^[@#!]/, "")
    .split(/[\s._-]+/)
    .filter((word) => /^[\p{L}\p{N}\p{Extended_Pictographic}]/u.test(word));
  const first = firstOf(words[0] ?? "?");
  if (words.length < 2 || !/^[\p{L}\p{N}]/u.test(first)) return first.toUpperCase();
  const last = firstOf(words[words.length - 1] ?? "");
  return (first + (/^[\p{L}\p{N}]/u.test(last) ? last : "")).toUpperCase();
}

export function Avatar({
  name,
  seed,
  size = 40,
  square,
}: {
  name: string;
  seed: string;
  size?: number;
  square?: boolean;
}) {
  return (
    <span
      aria-hidden
      className={clsx(
        "inline-flex shrink-0 items-center justify-center overflow-hidden font-semibold tracking-tight text-white select-none",
        square === true ? "rounded-[28%]" : "rounded-full",
      )}
      style={{ width: size, height: size, fontSize: size * 0.38, background: tint(seed) }}
    >
      {initials(name)}
    </span>
  );
}

/** Grey shapes in the place of what is on its way. */
export function Skeleton({ className }: { className: string }) {
  return <span aria-hidden className={clsx("skeleton block", className)} />;
}

const tones = {
  info: "bg-sunken text-ink-2",
  good: "bg-good-soft text-good",
  warn: "bg-warn-soft text-warn",
  bad: "bg-bad-soft text-bad",
};

/** One sentence, and at most one thing to do about it. */
export function Callout({
  tone = "info",
  icon,
  children,
  action,
  role,
}: {
  tone?: keyof typeof tones;
  icon?: ReactNode;
  children: ReactNode;
  action?: ReactNode;
  role?: "alert" | "status";
}) {
  return (
    <div
      role={role}
      className={clsx(
        "flex flex-wrap items-start gap-2.5 rounded-lg px-3 py-2.5 text-[13px] leading-snug",
        tones[tone],
      )}
    >
      {icon !== undefined ? <span className="mt-px shrink-0 [&_svg]:size-4">{icon}</span> : null}
      <div className="min-w-0 flex-1 basis-44 wrap-anywhere">{children}</div>
      {action !== undefined ? <div className="ml-auto shrink-0">{action}</div> : null}
    </div>
  );
}

export function Kbd({ children }: { children: ReactNode }) {
  return (
    <kbd className="rounded border border-line bg-sunken px-1.5 py-px font-sans text-[11px] font-medium text-ink-3">
      {children}
    </kbd>
  );
}

/** What stands where nothing is yet. */
export function Empty({
  icon,
  title,
  page,
  children,
}: {
  icon: ReactNode;
  title: string;
  page?: boolean;
  children?: ReactNode;
}) {
  const Heading = page === true ? "h1" : "h2";
  return (
    <div className="flex flex-col items-center gap-2 px-8 text-center">
      <span className="mb-2 flex size-14 items-center justify-center rounded-2xl bg-sunken text-ink-3 [&_svg]:size-6">
        {icon}
      </span>
      <Heading className="text-[15px] font-semibold">{title}</Heading>
      {children !== undefined ? <div className="max-w-sm text-sm leading-relaxed text-ink-2">{children}</div> : null}
    </div>
  );
}

export function Mark({ size = 32 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 64 64" aria-hidden>
      <rect width="64" height="64" rx="16" className="fill-accent" />
      <path
        d="M44.5 23.2A15.5 15.5 0 1 0 44.5 40.8"
        fill="none"
        stroke="#fff"
        strokeWidth="6.5"
        strokeLinecap="round"
      />
      <circle cx="32" cy="29.5" r="4.2" fill="#fff" />
      <path d="M30.2 30h3.600l1.400 8.500h-6.400z" fill="#fff" />
    </svg>
  );
}
