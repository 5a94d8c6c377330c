import { TriangleAlert } from "lucide-react";
import { t } from "../i18n";
import { Callout } from "./core";
import { Confirm } from "./overlay";

interface Props {
  open: boolean;
  busy: boolean;
  onOpenChange(open: boolean): void;
  onConfirm(): void;
}

/** Signing out deletes keys. It says so before, and what they are needed for. */
export function SignOutConfirm({ open, busy, onOpenChange, onConfirm }: Props) {
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
      onConfirm={onConfirm}
    />
  );
}
