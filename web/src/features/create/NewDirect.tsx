import { useState } from "react";
import { t } from "../../i18n";
import { useChat } from "../../stores/context";
import { useAction } from "../../stores/useAction";
import { Form, UserIdField } from "../../ui/form";
import { CreateDialog, type CreateProps, wrongUser } from "./parts";

export function NewDirect(props: CreateProps) {
  return <CreateDialog {...props} title={t("create.direct")} description={t("create.directText")} form={DirectForm} />;
}

function DirectForm({ onCreated }: Pick<CreateProps, "onCreated">) {
  const chat = useChat();
  const [user, setUser] = useState("");
  const [error, setError] = useState<string | undefined>();
  const { busy, failure, run } = useAction();

  function submit(): void {
    const wanted = user.trim();
    const bad = wrongUser(wanted, chat.me.userId);
    setError(bad);
    if (bad === undefined) void run(async () => onCreated(await chat.createDirect(wanted)));
  }

  return (
    <Form action={t("create.start")} busy={busy} failure={failure} onSubmit={submit}>
      <UserIdField
        value={user}
        onChange={(event) => {
          setUser(event.target.value);
          setError(undefined);
        }}
        error={error}
        autoFocus
      />
    </Form>
  );
}
