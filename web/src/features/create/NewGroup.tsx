import { X } from "lucide-react";
import { type KeyboardEvent, useState } from "react";
import { t } from "../../i18n";
import { useChat } from "../../stores/context";
import { useAction } from "../../stores/useAction";
import { Avatar, Button } from "../../ui/core";
import { Form, TextField, UserIdField } from "../../ui/form";
import { CreateDialog, type CreateProps, wrongUser } from "./parts";

export function NewGroup(props: CreateProps) {
  return <CreateDialog {...props} title={t("create.group")} description={t("create.groupText")} form={GroupForm} />;
}

function GroupForm({ onCreated }: Pick<CreateProps, "onCreated">) {
  const chat = useChat();
  const [name, setName] = useState("");
  const [nameError, setNameError] = useState<string | undefined>();
  const [user, setUser] = useState("");
  const [userError, setUserError] = useState<string | undefined>();
  const [invited, setInvited] = useState<string[]>([]);
  const { busy, failure, run } = useAction();

  /** Takes what stands in the input over into the list; the list is null where it cannot. */
  function take(): string[] | null {
    const wanted = user.trim();
    const bad = invited.includes(wanted) ? t("create.already") : wrongUser(wanted, chat.me.userId);
    setUserError(bad);
    if (bad !== undefined) return null;
    const list = [...invited, wanted];
    setInvited(list);
    setUser("");
    return list;
  }

  function key(event: KeyboardEvent): void {
    if (event.key === "Enter" || event.key === "," || (event.key === " " && user.trim() !== "")) {
      if (event.key === "Enter" && user.trim() === "") return;
      event.preventDefault();
      take();
    } else if (event.key === "Backspace" && user === "") {
      setInvited(invited.slice(0, -1));
    }
  }

  function submit(): void {
    const missing = name.trim() === "";
    setNameError(missing ? t("create.nameMissing") : undefined);
    const list = user.trim() === "" ? invited : take();
    if (missing || list === null) return;
    void run(async () => onCreated(await chat.createGroup({ name: name.trim(), invite: list })));
  }

  return (
    <Form action={t("create.createGroup")} busy={busy} failure={failure} onSubmit={submit}>
      <TextField
        label={t("create.name")}
        value={name}
        onChange={(event) => setName(event.target.value)}
        error={nameError}
        autoFocus
        autoComplete="off"
        maxLength={200}
      />
      <div>
        <UserIdField
          label={t("create.invite")}
          hint={t("create.inviteHint")}
          value={user}
          onChange={(event) => {
            setUser(event.target.value);
            setUserError(undefined);
          }}
          onKeyDown={key}
          error={userError}
          suffix={
            <Button variant="quiet" size="small" className="mr-1.5" onClick={take} disabled={user.trim() === ""}>
              {t("create.add")}
            </Button>
          }
        />
        {invited.length > 0 ? (
          <ul className="mt-3 flex flex-wrap gap-1.5">
            {invited.map((id) => (
              <li
                key={id}
                className="flex max-w-full items-center gap-1.5 rounded-full bg-sunken py-1 pr-1 pl-1 text-[13px]"
              >
                <Avatar name={id} seed={id} size={22} />
                <span className="truncate">{id}</span>
                <button
                  type="button"
                  aria-label={t("create.remove", { user: id })}
                  onClick={() => setInvited(invited.filter((other) => other !== id))}
                  className="touch flex size-6 shrink-0 items-center justify-center rounded-full text-ink-2 hover:bg-hover hover:text-ink"
                >
                  <X className="size-3.5" />
                </button>
              </li>
            ))}
          </ul>
        ) : null}
      </div>
    </Form>
  );
}
