import { ChevronLeft, ShieldCheck, ShieldOff } from "lucide-react";
import { useState } from "react";
import { t } from "../../i18n";
import { useChat } from "../../stores/context";
import { describe } from "../../stores/failed";
import type { RoomSummary } from "../../stores/model";
import { Avatar, Button } from "../../ui/core";
import { IconButton } from "../../ui/icon";
import { toast } from "../../ui/toast";

/** An invitation is somebody else's wish: it says from whom, by their full address, before anything of it is shown. */
export function Invitation({ room, onBack, onDeclined }: { room: RoomSummary; onBack(): void; onDeclined(): void }) {
  const chat = useChat();
  const [busy, setBusy] = useState<"accept" | "decline" | null>(null);
  const from = room.invitedBy;

  async function answer(what: "accept" | "decline"): Promise<void> {
    setBusy(what);
    try {
      await (what === "accept" ? chat.accept(room.id) : chat.decline(room.id));
      if (what === "decline") onDeclined();
    } catch (error) {
      toast("bad", describe(error));
    }
    setBusy(null);
  }

  return (
    <main className="flex h-full flex-col overflow-y-auto bg-canvas">
      <div className="p-2 md:hidden">
        <IconButton label={t("back")} onClick={onBack} tooltip={false}>
          <ChevronLeft />
        </IconButton>
      </div>
      <div className="flex flex-1 flex-col items-center justify-center px-6 pb-20 text-center">
        <Avatar name={from?.name ?? room.name} seed={from?.userId ?? room.id} size={76} />
        <h1 className="mt-5 text-xl font-semibold tracking-tight wrap-anywhere" dir="auto">
          {from === null ? t("invite.titleUnknown") : t("invite.title", { name: from.name })}
        </h1>
        <p className="mt-1 text-[15px] text-ink-2 wrap-anywhere">
          {room.direct ? t("invite.direct") : t("invite.group", { room: room.name })}
        </p>
        <p className="mt-5 max-w-sm text-sm leading-relaxed text-ink-2 wrap-anywhere">
          {from === null ? null : t("invite.from", { user: from.userId })}
        </p>
        <p className="mt-4 flex items-center gap-2 text-[13px] text-ink-2">
          {room.sealed ? (
            <ShieldCheck className="size-4 shrink-0 text-good" />
          ) : (
            <ShieldOff className="size-4 shrink-0 text-warn" />
          )}
          {room.sealed ? t("invite.sealed") : t("invite.plain")}
        </p>
        <div className="mt-8 flex w-full max-w-xs gap-3">
          <Button
            size="large"
            className="flex-1"
            busy={busy === "decline"}
            disabled={busy !== null}
            onClick={() => void answer("decline")}
          >
            {t("invite.decline")}
          </Button>
          <Button
            variant="primary"
            size="large"
            className="flex-1"
            busy={busy === "accept"}
            disabled={busy !== null}
            onClick={() => void answer("accept")}
          >
            {t("invite.accept")}
          </Button>
        </div>
      </div>
    </main>
  );
}
