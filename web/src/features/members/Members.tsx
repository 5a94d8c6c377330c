import { clsx } from "clsx";
import { UserMinus, UserPlus, X } from "lucide-react";
import { useDeferredValue, useMemo, useState } from "react";
import { Virtuoso } from "react-virtuoso";
import { t } from "../../i18n";
import { useValue } from "../../stores/context";
import type { Member, RoomModel } from "../../stores/model";
import { useAction } from "../../stores/useAction";
import { Avatar } from "../../ui/core";
import { IconButton } from "../../ui/icon";
import { Form, UserIdField } from "../../ui/form";
import { isUserId } from "../../ui/matrixId";
import { Confirm, Dialog } from "../../ui/overlay";
import { toast } from "../../ui/toast";

interface Props {
  room: RoomModel;
  name: string;
  onClose(): void;
}

/** Who is here. A column beside the conversation, or the whole page on a phone. */
export function Members({ room, name, onClose }: Props) {
  const members = useValue(room.members);
  const mayInvite = useValue(room.mayInvite);
  const [query, setQuery] = useState("");
  const [inviting, setInviting] = useState(false);
  const [removing, setRemoving] = useState<Member | null>(null);
  const wanted = useDeferredValue(query.trim().toLocaleLowerCase());
  const shown = useMemo(
    () =>
      wanted === ""
        ? members
        : members.filter(
            (m) => m.name.toLocaleLowerCase().includes(wanted) || m.userId.toLocaleLowerCase().includes(wanted),
          ),
    [members, wanted],
  );

  return (
    <aside
      aria-label={t("members.title")}
      className="flex h-full w-full flex-col bg-side md:w-80 md:border-l md:border-line"
      onKeyDown={(event) => {
        if (event.key === "Escape") {
          event.stopPropagation();
          onClose();
        }
      }}
    >
      <header className="flex h-15 shrink-0 items-center gap-2 px-2 pl-4">
        <h2 className="flex-1 text-[15px] font-semibold">
          {t("members.title")} <span className="ml-1 font-normal text-ink-3 tabular-nums">{members.length}</span>
        </h2>
        {mayInvite ? (
          <IconButton label={t("members.invite")} onClick={() => setInviting(true)}>
            <UserPlus />
          </IconButton>
        ) : null}
        <IconButton label={t("close")} tooltip={false} onClick={onClose}>
          <X />
        </IconButton>
      </header>
      {members.length > 8 ? (
        <div className="px-3 pb-2">
          <input
            aria-label={t("members.search")}
            placeholder={t("members.search")}
            value={query}
            onChange={(event) => setQuery(event.target.value)}
            className="h-9 w-full rounded-lg border border-line bg-canvas px-3 text-sm outline-none pointer-coarse:h-11 placeholder:text-ink-3 focus:border-accent-ink"
          />
        </div>
      ) : null}
      {shown.length === 0 ? <p className="px-4 py-3 text-sm text-ink-2">{t("members.none")}</p> : null}
      <Virtuoso
        className="min-h-0 flex-1"
        data={shown}
        tabIndex={-1}
        initialItemCount={Math.min(shown.length, 12)}
        computeItemKey={(_, member) => member.userId}
        itemContent={(_, member) => <MemberRow member={member} onKick={() => setRemoving(member)} />}
      />
      <Invite room={room} name={name} open={inviting} onOpenChange={setInviting} />
      <Kick room={room} member={removing} onClose={() => setRemoving(null)} />
    </aside>
  );
}

export function MemberRow({ member, onKick }: { member: Member; onKick(): void }) {
  const role =
    member.membership === "invited"
      ? t("members.invited")
      : member.role === "member"
        ? null
        : t(`members.${member.role}`);
  return (
    <div className="group relative flex items-center gap-3 px-4 py-1.5">
      <Avatar name={member.name} seed={member.userId} size={36} />
      <div className="min-w-0 flex-1">
        <p className="flex items-baseline gap-1.5">
          <span className="truncate text-sm font-medium" dir="auto">
            {member.name}
          </span>
          {member.self ? <span className="text-xs text-ink-3">{t("members.you")}</span> : null}
        </p>
        <p className="truncate text-xs text-ink-2">{member.userId}</p>
      </div>
      {role !== null ? (
        <span
          className={clsx(
            "shrink-0 rounded-full bg-sunken px-2 py-0.5 text-[11px] font-medium text-ink-2",
            member.mayKick && "pointer-fine:group-focus-within:invisible pointer-fine:group-hover:invisible",
          )}
        >
          {role}
        </span>
      ) : null}
      {member.mayKick ? (
        <IconButton
          label={t("members.kick", { name: member.name })}
          small
          // Over the end of the row where one can hover: no room is kept for what is mostly not there.
          className="bg-side pointer-coarse:-mr-2 pointer-fine:absolute! pointer-fine:right-2 pointer-fine:opacity-0 pointer-fine:group-focus-within:opacity-100 pointer-fine:group-hover:opacity-100"
          onClick={onKick}
        >
          <UserMinus />
        </IconButton>
      ) : null}
    </div>
  );
}

function Invite({
  room,
  name,
  open,
  onOpenChange,
}: {
  room: RoomModel;
  name: string;
  open: boolean;
  onOpenChange(open: boolean): void;
}) {
  return (
    <Dialog
      open={open}
      onOpenChange={onOpenChange}
      title={t("members.inviteTitle", { name })}
      description={t("members.inviteText")}
    >
      <InviteForm room={room} onDone={() => onOpenChange(false)} />
    </Dialog>
  );
}

function InviteForm({ room, onDone }: { room: RoomModel; onDone(): void }) {
  const [user, setUser] = useState("");
  const [error, setError] = useState<string | undefined>();
  const { busy, failure, run } = useAction();

  function submit(): void {
    const wanted = user.trim();
    const bad = wanted === "" ? t("create.userIdMissing") : isUserId(wanted) ? undefined : t("create.userIdBad");
    setError(bad);
    if (bad !== undefined) return;
    void run(async () => {
      await room.invite(wanted);
      toast("good", t("members.invitedToast", { user: wanted }));
      onDone();
    });
  }

  return (
    <Form action={t("members.inviteAction")} busy={busy} failure={failure} onSubmit={submit}>
      <UserIdField value={user} onChange={(event) => setUser(event.target.value)} error={error} autoFocus />
    </Form>
  );
}

function Kick({ room, member, onClose }: { room: RoomModel; member: Member | null; onClose(): void }) {
  const { busy, run } = useAction((failure) => toast("bad", failure));
  async function kick(): Promise<void> {
    if (member !== null) await run(() => room.kick(member.userId));
    onClose();
  }
  const name = member?.name ?? "";
  return (
    <Confirm
      open={member !== null}
      onOpenChange={(open) => (open ? undefined : onClose())}
      title={t("members.kickTitle", { name })}
      text={t("members.kickText", { name })}
      action={t("members.kickAction")}
      danger
      busy={busy}
      onConfirm={() => void kick()}
    />
  );
}
