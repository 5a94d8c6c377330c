import { clsx } from "clsx";
import { MessageSquarePlus, Pencil } from "lucide-react";
import { type KeyboardEvent, useRef } from "react";
import { Virtuoso } from "react-virtuoso";
import { Link } from "wouter";
import { formatShort, t } from "../../i18n";
import type { Preview, RoomSummary } from "../../stores/model";
import { Avatar, Button, Empty, Skeleton } from "../../ui/core";
import { Ticks } from "../../ui/ticks";

interface Props {
  rooms: RoomSummary[];
  loaded: boolean;
  selected: string | null;
  onNew(): void;
}

/** The conversations: invitations first, then what happened last. Arrow keys move through them. */
export function RoomList({ rooms, loaded, selected, onNew }: Props) {
  const root = useRef<HTMLElement>(null);
  if (!loaded && rooms.length === 0) return <Loading />;
  if (rooms.length === 0) {
    return (
      <div className="flex flex-1 flex-col items-center justify-center pb-16">
        <Empty icon={<MessageSquarePlus />} title={t("rooms.none")}>
          <p className="mb-4">{t("rooms.noneText")}</p>
          <Button variant="primary" onClick={onNew}>
            {t("shell.new")}
          </Button>
        </Empty>
      </div>
    );
  }
  const invitations = rooms.filter((room) => room.membership === "invited").length;

  function move(event: KeyboardEvent): void {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const links = [...(root.current?.querySelectorAll<HTMLAnchorElement>("a[data-room]") ?? [])];
    const at = links.findIndex((link) => link === document.activeElement);
    const next = links[at + (event.key === "ArrowDown" ? 1 : -1)];
    if (next === undefined) return;
    event.preventDefault();
    next.focus();
  }

  return (
    <nav ref={root} aria-label={t("shell.rooms")} className="min-h-0 flex-1" onKeyDown={move}>
      <Virtuoso
        data={rooms}
        tabIndex={-1}
        className="h-full"
        increaseViewportBy={300}
        initialItemCount={Math.min(rooms.length, 14)}
        computeItemKey={(_, room) => room.id}
        itemContent={(index, room) => (
          <>
            {invitations > 0 && index === 0 ? <Heading text={t("rooms.invitations")} /> : null}
            {invitations > 0 && index === invitations ? <Heading text={t("shell.rooms")} /> : null}
            <RoomRow room={room} selected={room.id === selected} />
          </>
        )}
      />
    </nav>
  );
}

function Heading({ text }: { text: string }) {
  return <h2 className="px-4 pt-3 pb-1 text-xs font-semibold text-ink-3">{text}</h2>;
}

export function RoomRow({ room, selected }: { room: RoomSummary; selected: boolean }) {
  const unread = room.unread > 0 || room.membership === "invited";
  return (
    <div className="px-2 py-px">
      <Link
        href={`/room/${encodeURIComponent(room.id)}`}
        data-room={room.id}
        aria-current={selected ? "page" : undefined}
        className={clsx(
          "flex items-center gap-3 rounded-xl px-2.5 py-2 -outline-offset-2 transition-colors select-none",
          selected ? "bg-selected" : "hover:bg-hover",
        )}
      >
        <Avatar name={room.name} seed={room.id} size={44} square={!room.direct} />
        <span className="min-w-0 flex-1">
          <span className="flex items-baseline gap-2">
            <span
              className={clsx(
                "min-w-0 flex-1 truncate text-left text-[15px]",
                unread ? "font-semibold" : "font-medium",
              )}
              dir="auto"
            >
              {room.name}
            </span>
            {room.at > 0 ? (
              <time
                className={clsx(
                  "shrink-0 text-xs tabular-nums",
                  unread ? "text-accent-ink" : selected ? "text-ink-2" : "text-ink-3",
                )}
              >
                {formatShort(room.at)}
              </time>
            ) : null}
          </span>
          <span className="mt-0.5 flex h-5 items-center gap-2">
            <span className="flex min-w-0 flex-1 items-center gap-1 truncate text-[13px] text-ink-2">
              <Second room={room} />
            </span>
            <Unread room={room} />
          </span>
        </span>
      </Link>
    </div>
  );
}

function Unread({ room }: { room: RoomSummary }) {
  if (room.membership === "invited") return <span aria-hidden className="mr-1 size-2.5 rounded-full bg-accent" />;
  if (room.unread === 0) return null;
  const label = t("rooms.unread", { count: room.unread });
  return (
    <span
      role="img"
      aria-label={room.mentions > 0 ? `${label}, ${t("rooms.mention")}` : label}
      className="flex h-5 min-w-5 items-center justify-center rounded-full bg-accent px-1.5 text-[11px] font-semibold text-on-accent tabular-nums"
    >
      {room.mentions > 0 ? "@" : room.unread > 99 ? "99+" : room.unread}
    </span>
  );
}

/** The second line: what matters most of who types, what one began to write, and what was written last. */
function Second({ room }: { room: RoomSummary }) {
  if (room.membership === "invited") {
    const name = room.invitedBy?.name;
    return (
      <span className="truncate">
        {name === undefined ? t("rooms.invitedUnknown") : t("rooms.invitedBy", { name })}
      </span>
    );
  }
  if (room.membership === "left") return <span className="truncate italic">{t("rooms.left")}</span>;
  if (room.typing) return <span className="truncate text-accent-ink">{t("rooms.typing")}…</span>;
  if (room.draft) {
    return (
      <span className="flex items-center gap-1 truncate text-warn">
        <Pencil className="size-3" aria-hidden /> {t("rooms.draft")}
      </span>
    );
  }
  if (room.preview === null) return <span className="truncate">{t("rooms.empty")}</span>;
  const { preview } = room;
  return (
    <>
      {preview.delivery !== null ? <RowTicks state={preview.delivery} /> : null}
      <span className="truncate text-left" dir="auto">
        {preview.sender !== null ? `${preview.sender}: ` : ""}
        {previewText(preview)}
      </span>
    </>
  );
}

function RowTicks({ state }: { state: NonNullable<Preview["delivery"]> }) {
  return (
    <span className="flex [--tick-gap:var(--color-side)]">
      <Ticks state={state} />
    </span>
  );
}

function previewText({ content }: Preview): string {
  switch (content.kind) {
    case "text":
      return content.body.replace(/\s+/g, " ").slice(0, 120);
    case "image":
      return t("rooms.image");
    case "file":
      return content.name;
    case "unreadable":
      return t("rooms.unreadable");
  }
}

function Loading() {
  return (
    <div role="status" aria-label={t("boot.syncing")} className="flex-1 overflow-hidden px-2 pt-1">
      {Array.from({ length: 9 }, (_, i) => (
        <div key={i} className="flex items-center gap-3 px-2.5 py-2">
          <Skeleton className="size-11 rounded-full!" />
          <div className="flex flex-1 flex-col gap-2">
            <Skeleton className={i % 3 === 0 ? "h-3.5 w-2/5" : "h-3.5 w-3/5"} />
            <Skeleton className={i % 2 === 0 ? "h-3 w-4/5" : "h-3 w-3/5"} />
          </div>
        </div>
      ))}
    </div>
  );
}
