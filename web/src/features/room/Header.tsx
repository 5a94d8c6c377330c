import { ChevronLeft, EllipsisVertical, LogOut, UsersRound } from "lucide-react";
import { useState } from "react";
import { formatNames, t } from "../../i18n";
import { useValue } from "../../stores/context";
import type { Person, RoomModel, RoomSummary } from "../../stores/model";
import { useAction } from "../../stores/useAction";
import { Avatar } from "../../ui/core";
import { IconButton } from "../../ui/icon";
import { Confirm, Menu } from "../../ui/overlay";
import { toast } from "../../ui/toast";
import { Shield } from "./Shield";

interface Props {
  room: RoomModel;
  summary: RoomSummary;
  membersOpen: boolean;
  onMembers(): void;
  onBack(): void;
  onLeft(): void;
}

export function Header({ room, summary, membersOpen, onMembers, onBack, onLeft }: Props) {
  const safety = useValue(room.safety);
  const members = useValue(room.members);
  const [leaving, setLeaving] = useState(false);
  const { busy, run } = useAction((failure) => toast("bad", failure));

  function leave(): Promise<void> {
    return run(async () => {
      await room.leave();
      setLeaving(false);
      onLeft();
    });
  }

  const other = summary.direct ? members.find((member) => !member.self) : undefined;
  return (
    <header className="flex h-15 shrink-0 items-center gap-2 border-b border-line px-2 sm:px-4">
      <IconButton label={t("back")} tooltip={false} className="md:hidden" onClick={onBack}>
        <ChevronLeft />
      </IconButton>
      <Avatar name={summary.name} seed={summary.id} size={36} square={!summary.direct} />
      <div className="ml-1 min-w-0 flex-1">
        <h1 className="truncate text-[15px] leading-tight font-semibold" dir="auto">
          {summary.name}
        </h1>
        <p className="truncate text-[13px] leading-tight text-ink-2">
          {other !== undefined ? other.userId : t("room.members", { count: members.length })}
        </p>
      </div>
      <Shield room={room} safety={safety} members={members} />
      <IconButton label={t("room.openMembers")} aria-expanded={membersOpen} onClick={onMembers}>
        <UsersRound />
      </IconButton>
      <Menu
        trigger={
          <IconButton label={t("room.more")} tooltip={false}>
            <EllipsisVertical />
          </IconButton>
        }
        entries={[{ label: t("room.leave"), icon: <LogOut />, danger: true, onSelect: () => setLeaving(true) }]}
      />
      <Confirm
        open={leaving}
        onOpenChange={setLeaving}
        title={t("room.leaveTitle", { name: summary.name })}
        text={t("room.leaveText")}
        action={t("room.leave")}
        danger
        busy={busy}
        onConfirm={() => void leave()}
      />
    </header>
  );
}

/** Who is writing, in a line that keeps its height, so that nothing jumps. */
export function TypingLine({ people }: { people: Person[] }) {
  const names = people.map((person) => person.name);
  const text =
    names.length === 0
      ? ""
      : names.length === 1
        ? t("room.typing_one", { names: names[0] ?? "" })
        : names.length < 4
          ? t("room.typing_two", { names: formatNames(names) })
          : t("room.typing_many");
  return (
    <p role="status" className="flex h-6 items-center gap-2 px-6 text-xs text-ink-2">
      {text === "" ? null : (
        <>
          <span aria-hidden className="flex gap-[3px]">
            {[0, 1, 2].map((i) => (
              <span
                key={i}
                className="animate-dot size-[5px] rounded-full bg-ink-3"
                style={{ animationDelay: `${i * 150}ms` }}
              />
            ))}
          </span>
          <span className="truncate" dir="auto">
            {text}
          </span>
        </>
      )}
    </p>
  );
}
