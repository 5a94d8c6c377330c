import { TriangleAlert } from "lucide-react";
import { t } from "../../i18n";
import { useChat } from "../../stores/context";
import { useAction } from "../../stores/useAction";
import { Callout } from "../../ui/core";
import { Confirm } from "../../ui/overlay";
import { toast } from "../../ui/toast";

/** Signing out deletes keys. It says so before, and what they are needed for. */
export function SignOutDialog({ open, onOpenChange }: { open: boolean; onOpenChange(open: boolean): void }) {
  const chat = useChat();
  const { busy, run } = useAction((failure) => toast("bad", failure));
  return (
    <Confirm
      open={open}
      onOpenChange={onOpenChange}
      title={t("settings.signOutTitle")}
      text={
        <div className="flex flex-col gap-3">
          <p>{t("settings.signOutText")}</p>
          <Callout tone="warn" icon={<TriangleAlert />}>
            {t("settings.signOutWarn")}
          </Callout>
        </div>
      }
      action={t("settings.signOut")}
      danger
      busy={busy}
      onConfirm={() => void run(() => chat.signOut())}
    />
  );
}
