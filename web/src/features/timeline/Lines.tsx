import { ShieldCheck } from "lucide-react";
import { formatDay, formatNames, t } from "../../i18n";
import type { Notice, TimelineItem } from "../../stores/model";

type Of<K extends TimelineItem["kind"]> = Extract<TimelineItem, { kind: K }>;

export function DayLine({ item }: { item: Of<"day"> }) {
  return (
    <div role="separator" aria-label={formatDay(item.at)} className="flex justify-center py-4">
      <span className="rounded-full bg-sunken px-3 py-1 text-xs font-medium text-ink-2">{formatDay(item.at)}</span>
    </div>
  );
}

export function UnreadLine() {
  return (
    <div
      role="separator"
      aria-label={t("timeline.unread")}
      className="flex items-center gap-3 px-5 pt-4 pb-1.5 text-xs font-semibold text-accent-ink"
    >
      <span className="h-px flex-1 bg-accent/35" />
      {t("timeline.unread")}
      <span className="h-px flex-1 bg-accent/35" />
    </div>
  );
}

export function StartLine({ item }: { item: Of<"start"> }) {
  return (
    <div className="flex flex-col items-center gap-1.5 px-6 pt-10 pb-4 text-center text-[13px] text-ink-2">
      <p className="wrap-anywhere">{t(item.direct ? "timeline.startDirect" : "timeline.start", { name: item.name })}</p>
      {item.sealed ? (
        <p className="flex items-center gap-1.5">
          <ShieldCheck className="size-4 shrink-0 text-good" aria-hidden />
          {t("timeline.startSealed")}
        </p>
      ) : null}
    </div>
  );
}

/** One short sentence about what happened to the room. */
export function noticeText({ actors, happening }: Notice): string {
  const who = formatNames(actors);
  switch (happening.what) {
    case "joined":
    case "left":
      return t(`happening.${happening.what}`, { who, count: actors.length });
    case "invited":
    case "kicked":
    case "banned":
    case "unbanned":
    case "invitation_withdrawn":
      return t(`happening.${happening.what}`, { who, target: happening.target });
    case "renamed":
      return t("happening.renamed", { who, name: happening.name });
    case "topic":
      return t("happening.topic", { who, topic: happening.topic });
    case "profile":
      return t("happening.profile", { from: happening.from, to: happening.to });
    case "created":
    case "sealed":
    case "declined":
    case "avatar":
    case "permissions":
    case "history":
    case "access":
      return t(`happening.${happening.what}`, { who });
  }
}

export function NoticeLine({ notice }: { notice: Notice }) {
  return (
    <p className="px-8 py-1 text-center text-[13px] leading-snug text-ink-2 wrap-anywhere" dir="auto">
      {noticeText(notice)}
    </p>
  );
}
