/** The parts of a page of settings: cards with rows. */
import { clsx } from "clsx";
import { CircleAlert } from "lucide-react";
import type { ReactNode } from "react";
import { t } from "../i18n";
import { Button, Callout, Skeleton } from "./core";

/** One matter: its name, a sentence, at most one thing to do beside them, and what belongs to it. */
export function Card({
  title,
  text,
  action,
  className,
  children,
}: {
  title: string;
  text?: ReactNode;
  action?: ReactNode;
  className?: string;
  children?: ReactNode;
}) {
  return (
    <section className={clsx("rounded-2xl border border-line bg-raised", className)}>
      <div className="flex flex-wrap items-start justify-between gap-x-4 gap-y-3 p-4 sm:p-5">
        <div className="min-w-0 flex-1 basis-64">
          <h2 className="text-[15px] font-semibold">{title}</h2>
          {text !== undefined ? <p className="mt-1 text-[13px] leading-relaxed text-ink-2">{text}</p> : null}
        </div>
        {action}
      </div>
      {children}
    </section>
  );
}

/** What stands below the head of a card. */
export function CardBody({ children }: { children: ReactNode }) {
  return <div className="border-t border-line p-4 sm:p-5">{children}</div>;
}

/** Things of one kind, one below the other. */
export function Rows({ label, children }: { label: string; children: ReactNode }) {
  return (
    <ul aria-label={label} className="divide-y divide-line border-t border-line">
      {children}
    </ul>
  );
}

export function Row({
  icon,
  title,
  badge,
  note,
  action,
}: {
  icon: ReactNode;
  title: string;
  badge?: ReactNode;
  note?: ReactNode;
  action?: ReactNode;
}) {
  return (
    <li className="flex items-center gap-3 px-4 py-3 sm:px-5">
      <span
        aria-hidden
        className="flex size-10 shrink-0 items-center justify-center rounded-xl bg-sunken text-ink-2 [&_svg]:size-5"
      >
        {icon}
      </span>
      <div className="min-w-0 flex-1">
        <div className="flex flex-wrap items-center gap-x-2 gap-y-1">
          <span className="text-sm font-medium wrap-anywhere" dir="auto">
            {title}
          </span>
          {badge}
        </div>
        {note !== undefined ? <p className="mt-0.5 text-[13px] leading-snug text-ink-2 wrap-anywhere">{note}</p> : null}
      </div>
      {action}
    </li>
  );
}

const badges = {
  plain: "bg-sunken text-ink-2",
  good: "bg-good-soft text-good",
  warn: "bg-warn-soft text-warn",
};

export function Badge({ tone = "plain", children }: { tone?: keyof typeof badges; children: ReactNode }) {
  return (
    <span className={clsx("rounded-full px-2 py-0.5 text-xs font-medium whitespace-nowrap", badges[tone])}>
      {children}
    </span>
  );
}

/** Why something could not be had, and the way to ask again. */
export function Unavailable({ failure, onRetry }: { failure: string; onRetry(): void }) {
  return (
    <Callout
      tone="bad"
      role="alert"
      icon={<CircleAlert />}
      action={
        <Button size="small" onClick={onRetry}>
          {t("retry")}
        </Button>
      }
    >
      {failure}
    </Callout>
  );
}

/** The outline of rows that are on their way. */
export function RowsLoading({ count = 2 }: { count?: number }) {
  return (
    <div role="status" className="border-t border-line">
      <span className="sr-only">{t("settingsPages.loading")}</span>
      {Array.from({ length: count }, (_, i) => (
        <div key={i} className="flex items-center gap-3 px-4 py-3 sm:px-5">
          <Skeleton className="size-10 rounded-xl!" />
          <div className="flex flex-1 flex-col gap-2">
            <Skeleton className="h-3.5 w-40" />
            <Skeleton className="h-3 w-56" />
          </div>
        </div>
      ))}
    </div>
  );
}
