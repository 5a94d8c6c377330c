import { CircleAlert } from "lucide-react";
import { type FormEvent, useState } from "react";
import { t } from "../../i18n";
import { useChat } from "../../stores/context";
import { describe } from "../../stores/failed";
import { Button, Callout } from "../../ui/core";
import { TextField } from "../../ui/form";
import { isUserId } from "../../ui/matrixId";
import { Dialog } from "../../ui/overlay";

interface Props {
  open: boolean;
  onOpenChange(open: boolean): void;
  onCreated(roomId: string): void;
}

export function NewDirect({ open, onOpenChange, onCreated }: Props) {
  return (
    <Dialog open={open} onOpenChange={onOpenChange} title={t("create.direct")} description={t("create.directText")}>
      <Form
        onCreated={(id) => {
          onOpenChange(false);
          onCreated(id);
        }}
      />
    </Dialog>
  );
}

function Form({ onCreated }: { onCreated(roomId: string): void }) {
  const chat = useChat();
  const [user, setUser] = useState("");
  const [error, setError] = useState<string | undefined>();
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  async function submit(event: FormEvent): Promise<void> {
    event.preventDefault();
    const wanted = user.trim();
    const bad = wrongUser(wanted, chat.me.userId);
    setError(bad);
    setFailure(null);
    if (bad !== undefined) return;
    setBusy(true);
    try {
      onCreated(await chat.createDirect(wanted));
    } catch (reason) {
      setFailure(describe(reason));
      setBusy(false);
    }
  }

  return (
    <form noValidate className="flex flex-col gap-4" onSubmit={(event) => void submit(event)}>
      <TextField
        label={t("create.userId")}
        hint={t("create.userIdHint")}
        value={user}
        onChange={(event) => {
          setUser(event.target.value);
          setError(undefined);
        }}
        error={error}
        autoFocus
        autoCapitalize="none"
        autoComplete="off"
        spellCheck={false}
        maxLength={300}
      />
      {failure !== null ? (
        <Callout tone="bad" role="alert" icon={<CircleAlert />}>
          {failure}
        </Callout>
      ) : null}
      <Button type="submit" variant="primary" size="large" busy={busy}>
        {t("create.start")}
      </Button>
    </form>
  );
}

export function wrongUser(userId: string, me: string): string | undefined {
  if (userId === "") return t("create.userIdMissing");
  if (!isUserId(userId)) return t("create.userIdBad");
  if (userId === me) return t("create.userIdSelf");
  return undefined;
}
