import type { ComponentType } from "react";
import { t } from "../../i18n";
import { isUserId } from "../../ui/matrixId";
import { Dialog } from "../../ui/overlay";

export interface CreateProps {
  open: boolean;
  onOpenChange(open: boolean): void;
  onCreated(roomId: string): void;
}

interface Props extends CreateProps {
  title: string;
  description: string;
  form: ComponentType<Pick<CreateProps, "onCreated">>;
}

/** The dialog of a new conversation: it closes once there is one. */
export function CreateDialog({ open, onOpenChange, onCreated, title, description, form: Form }: Props) {
  return (
    <Dialog open={open} onOpenChange={onOpenChange} title={title} description={description}>
      <Form
        onCreated={(id) => {
          onOpenChange(false);
          onCreated(id);
        }}
      />
    </Dialog>
  );
}

export function wrongUser(userId: string, me: string): string | undefined {
  if (userId === "") return t("create.userIdMissing");
  if (!isUserId(userId)) return t("create.userIdBad");
  if (userId === me) return t("create.userIdSelf");
  return undefined;
}
