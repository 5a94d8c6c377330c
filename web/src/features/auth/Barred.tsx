import { useState } from "react";
import { t } from "../../i18n";
import { Button } from "../../ui/core";
import { Frame } from "./Frame";

interface Props {
  server: string;
  userId: string;
  onAgain(): Promise<void>;
  onSignOut(): void;
}

/** An administrator has locked the account. Its session stays, and goes on when that ends. */
export function Barred({ server, userId, onAgain, onSignOut }: Props) {
  const [busy, setBusy] = useState(false);
  return (
    <Frame title={t("barred.title")} text={t("barred.text", { server, user: userId })} server={server} sudden>
      <div className="flex flex-col gap-3">
        <Button
          variant="primary"
          size="large"
          busy={busy}
          onClick={() => {
            setBusy(true);
            void onAgain();
          }}
        >
          {t("barred.again")}
        </Button>
        <Button size="large" onClick={onSignOut}>
          {t("barred.signOut")}
        </Button>
      </div>
    </Frame>
  );
}
