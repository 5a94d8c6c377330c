import { TriangleAlert } from "lucide-react";
import { t } from "../../i18n";
import { useAction } from "../../stores/useAction";
import { Callout } from "../../ui/core";
import { Confirm } from "../../ui/overlay";

interface Props {
  onSignOut(): Promise<void>;
  onClose(): void;
}

/** Giving up a session that cannot be opened at present deletes its keys as well. */
export function LeaveDialog({ onSignOut, onClose }: Props) {
  const { busy, run } = useAction();
  return (
    <Confirm
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
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
      onConfirm={() => void run(onSignOut)}
    />
  );
}
