import { clsx } from "clsx";
import { ShieldAlert, ShieldCheck, ShieldOff } from "lucide-react";
import { t } from "../../i18n";
import type { Member, RoomModel, RoomSafety } from "../../stores/model";
import { useAction } from "../../stores/useAction";
import { Button } from "../../ui/core";
import { Popover } from "../../ui/overlay";
import { toast } from "../../ui/toast";

interface Props {
  room: RoomModel;
  safety: RoomSafety;
  members: Member[];
}

/** The one shield: what this conversation promises, and what stands in the way of it. */
export function Shield({ room, safety, members }: Props) {
  const attention = safety.sealed && (safety.changed.length > 0 || safety.withoutKeys.length > 0);
  const Icon = !safety.sealed ? ShieldOff : attention ? ShieldAlert : ShieldCheck;
  const label = !safety.sealed ? t("safety.plain") : attention ? t("safety.attention") : t("safety.sealed");
  return (
    <Popover
      label={t("safety.label")}
      trigger={
        <button
          type="button"
          aria-label={`${t("safety.label")}: ${label}`}
          data-testid="shield"
          data-sealed={safety.sealed}
          className={clsx(
            "touch inline-flex h-9 shrink-0 items-center gap-1.5 rounded-lg px-2 text-[13px] font-medium transition-colors hover:bg-hover data-[state=open]:bg-hover",
            safety.sealed && !attention ? "text-good" : "text-warn",
          )}
        >
          <Icon className="size-[18px]" aria-hidden />
          <span className="max-sm:hidden">{safety.sealed ? t("safety.sealed") : t("safety.plain")}</span>
        </button>
      }
    >
      <SafetyDetails room={room} safety={safety} members={members} />
    </Popover>
  );
}

export function SafetyDetails({ room, safety, members }: Props) {
  const name = (userId: string): string => members.find((member) => member.userId === userId)?.name ?? userId;
  const Icon = safety.sealed ? ShieldCheck : ShieldOff;
  return (
    <div className="flex flex-col gap-4 text-sm leading-relaxed">
      <div>
        <h2 className={clsx("flex items-center gap-2 font-semibold", safety.sealed ? "text-good" : "text-warn")}>
          <Icon className="size-[18px]" aria-hidden />
          {safety.sealed ? t("safety.sealed") : t("safety.plain")}
        </h2>
        <p className="mt-1.5 text-ink-2">{safety.sealed ? t("safety.sealedText") : t("safety.plainText")}</p>
        {safety.sealed ? <p className="mt-1.5 text-ink-2">{t("safety.sealedNot")}</p> : null}
      </div>
      {safety.changed.map((userId) => (
        <Changed key={userId} room={room} userId={userId} name={name(userId)} />
      ))}
      {safety.withoutKeys.slice(0, 5).map((userId) => (
        <section key={userId} className="border-t border-line pt-3">
          <h3 className="font-semibold wrap-anywhere">{t("safety.without", { name: name(userId) })}</h3>
          <p className="mt-1 text-ink-2 wrap-anywhere">{t("safety.withoutText", { name: name(userId) })}</p>
        </section>
      ))}
    </div>
  );
}

function Changed({ room, userId, name }: { room: RoomModel; userId: string; name: string }) {
  const { busy, run } = useAction((failure) => toast("bad", failure));
  return (
    <section className="border-t border-line pt-3">
      <h3 className="font-semibold wrap-anywhere">{t("safety.changed", { name })}</h3>
      <p className="mt-1 mb-2.5 text-ink-2 wrap-anywhere">{t("safety.changedText", { name })}</p>
      <Button size="small" busy={busy} onClick={() => void run(() => room.acceptIdentity(userId))}>
        {t("safety.accept")}
      </Button>
    </section>
  );
}
