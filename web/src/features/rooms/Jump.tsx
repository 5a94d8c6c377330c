import { clsx } from "clsx";
import { Search } from "lucide-react";
import { Dialog } from "radix-ui";
import { type KeyboardEvent, useId, useMemo, useState } from "react";
import { t } from "../../i18n";
import type { RoomSummary } from "../../stores/model";
import { Avatar, Kbd } from "../../ui/core";
import { useGiveBack } from "../../ui/giveBack";

interface Props {
  open: boolean;
  onOpenChange(open: boolean): void;
  rooms: RoomSummary[];
  onPick(roomId: string): void;
}

/** Ctrl+K: a few letters and Enter. */
export function Jump({ open, onOpenChange, rooms, onPick }: Props) {
  const giveBack = useGiveBack(open);
  return (
    <Dialog.Root open={open} onOpenChange={onOpenChange}>
      <Dialog.Portal>
        <Dialog.Overlay className="animate-appear fixed inset-0 z-40 bg-black/35" />
        <Dialog.Content
          aria-describedby={undefined}
          onCloseAutoFocus={giveBack}
          className="animate-rise fixed inset-x-3 top-[12vh] z-50 mx-auto flex max-h-[60vh] max-w-lg flex-col overflow-hidden rounded-2xl border border-line bg-raised shadow-pop outline-none"
        >
          <Dialog.Title className="sr-only">{t("shell.jump")}</Dialog.Title>
          <Finder
            rooms={rooms}
            onPick={(id) => {
              onOpenChange(false);
              onPick(id);
            }}
          />
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Finder({ rooms, onPick }: { rooms: RoomSummary[]; onPick(roomId: string): void }) {
  const [query, setQuery] = useState("");
  const [at, setAt] = useState(0);
  const list = useId();
  const found = useMemo(() => find(rooms, query), [rooms, query]);
  const active = Math.min(at, found.length - 1);

  function key(event: KeyboardEvent): void {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step !== 0 && found.length > 0) {
      event.preventDefault();
      setAt((active + step + found.length) % found.length);
    }
    const room = found[active];
    if (event.key === "Enter" && room !== undefined) {
      event.preventDefault();
      onPick(room.id);
    }
  }

  return (
    <>
      <div className="flex items-center gap-2.5 border-b border-line px-4">
        <Search className="size-[18px] shrink-0 text-ink-3" aria-hidden />
        <input
          role="combobox"
          aria-label={t("shell.jump")}
          aria-expanded
          aria-controls={list}
          aria-activedescendant={found[active] !== undefined ? `${list}-${active}` : undefined}
          placeholder={t("shell.jumpPlaceholder")}
          value={query}
          onChange={(event) => {
            setQuery(event.target.value);
            setAt(0);
          }}
          onKeyDown={key}
          autoFocus
          autoComplete="off"
          spellCheck={false}
          className="h-13 min-w-0 flex-1 bg-transparent text-[15px] outline-none placeholder:text-ink-3"
        />
        <span className="pointer-coarse:hidden">
          <Kbd>{t("keys.esc")}</Kbd>
        </span>
      </div>
      <ul id={list} role="listbox" aria-label={t("shell.rooms")} className="overflow-y-auto p-1.5">
        {found.map((room, i) => (
          <li
            key={room.id}
            id={`${list}-${i}`}
            role="option"
            aria-selected={i === active}
            ref={i === active ? (element) => element?.scrollIntoView({ block: "nearest" }) : undefined}
            onPointerMove={() => setAt(i)}
            onClick={() => onPick(room.id)}
            className={clsx(
              "flex cursor-pointer items-center gap-3 rounded-lg px-2.5 py-2",
              i === active && "bg-hover",
            )}
          >
            <Avatar name={room.name} seed={room.id} size={30} square={!room.direct} />
            <span className="min-w-0 flex-1 truncate text-sm font-medium" dir="auto">
              {room.name}
            </span>
            <span className="text-xs text-ink-3">{room.direct ? t("rooms.direct") : t("rooms.group")}</span>
          </li>
        ))}
      </ul>
      {found.length === 0 ? (
        <p className="px-4 pt-1 pb-5 text-center text-sm text-ink-2">{t("shell.jumpNone")}</p>
      ) : null}
    </>
  );
}

/** Those whose name begins with what was typed come before those that contain it. */
function find(rooms: RoomSummary[], query: string): RoomSummary[] {
  const wanted = query.trim().toLocaleLowerCase();
  const rank = (room: RoomSummary): number => {
    const name = room.name.toLocaleLowerCase();
    if (name.startsWith(wanted)) return 0;
    if (name.split(/\s+/).some((word) => word.startsWith(wanted))) return 1;
    return name.includes(wanted) || room.id.toLocaleLowerCase() === wanted ? 2 : 3;
  };
  return rooms
    .map((room) => ({ room, rank: rank(room) }))
    .filter((entry) => entry.rank < 3)
    .sort((a, b) => a.rank - b.rank)
    .slice(0, 30)
    .map((entry) => entry.room);
}
