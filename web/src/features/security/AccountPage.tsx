import { useState } from "react";
import { t } from "../../i18n";
import type { Account } from "../../stores/account";
import type { Person } from "../../stores/model";
import { useLoaded } from "../../stores/useLoaded";
import { useTask } from "../../stores/useTask";
import { Avatar, Button } from "../../ui/core";
import { Checkbox } from "../../ui/check";
import { Form, PasswordField, TextField } from "../../ui/form";
import { Dialog } from "../../ui/overlay";
import { Card } from "../../ui/page";
import { toast } from "../../ui/toast";
import { DataExport } from "./DataExport";
import { Emails } from "./Emails";

/** More than the server insists on, which lets other clients decide. */
const minPassword = 10;

/** Who one is here, and what belongs to the account itself. */
export function AccountPage({ account, me }: { account: Account; me: Person }) {
  const abilities = useLoaded(account.abilities);
  return (
    <div className="flex flex-col gap-5">
      <div className="flex items-center gap-4">
        <Avatar name={me.name} seed={me.userId} size={56} />
        <div className="min-w-0">
          <p className="truncate text-base font-semibold tracking-tight" dir="auto">
            {me.name}
          </p>
          <p className="text-sm text-ink-2 wrap-anywhere select-all">{me.userId}</p>
        </div>
      </div>
      <Password account={account} userId={me.userId} possible={abilities.value?.password ?? true} />
      <Emails account={account} possible={abilities.value?.emails ?? true} />
      <DataExport account={account} />
      <Close account={account} userId={me.userId} />
    </div>
  );
}

function Password({ account, userId, possible }: { account: Account; userId: string; possible: boolean }) {
  const [open, setOpen] = useState(false);
  return (
    <Card
      title={t("account.passwordTitle")}
      text={possible ? t("account.passwordText") : t("account.passwordElsewhere")}
      action={possible ? <Button onClick={() => setOpen(true)}>{t("account.passwordChange")}</Button> : undefined}
    >
      <Dialog open={open} onOpenChange={setOpen} title={t("account.passwordChange")}>
        <NewPassword account={account} userId={userId} onDone={() => setOpen(false)} />
      </Dialog>
    </Card>
  );
}

function NewPassword({ account, userId, onDone }: { account: Account; userId: string; onDone(): void }) {
  const [typed, setTyped] = useState("");
  const [short, setShort] = useState(false);
  const [others, setOthers] = useState(true);
  const { busy, failure, run } = useTask({ M_WEAK_PASSWORD: t("account.passwordWeak") }, undefined, (late) =>
    toast("bad", late),
  );
  return (
    <Form
      action={t("account.passwordChange")}
      busy={busy}
      failure={failure}
      onSubmit={() => {
        const tooShort = [...typed].length < minPassword;
        setShort(tooShort);
        if (tooShort) return;
        void run(async () => {
          await account.changePassword(typed, others);
          toast("good", t("account.passwordDone"));
          onDone();
        });
      }}
    >
      <input type="text" name="username" autoComplete="username" value={userId} readOnly hidden />
      <PasswordField
        label={t("account.passwordNew")}
        hint={t("account.passwordHint")}
        error={short ? t("account.passwordShort") : undefined}
        value={typed}
        onChange={(event) => {
          setTyped(event.target.value);
          setShort(false);
        }}
        autoComplete="new-password"
        maxLength={512}
      />
      <Checkbox
        label={t("account.passwordOthers")}
        hint={t("account.passwordOthersText")}
        checked={others}
        onChange={setOthers}
      />
    </Form>
  );
}

function Close({ account, userId }: { account: Account; userId: string }) {
  const [open, setOpen] = useState(false);
  return (
    <Card
      title={t("account.closeTitle")}
      text={t("account.closeText")}
      action={
        <Button onClick={() => setOpen(true)} className="text-bad!">
          {t("account.closeAction")}
        </Button>
      }
    >
      <Dialog
        open={open}
        onOpenChange={setOpen}
        title={t("account.closeDialog", { user: userId })}
        description={t("account.closeConsequences")}
      >
        <Closing account={account} userId={userId} />
      </Dialog>
    </Card>
  );
}

function Closing({ account, userId }: { account: Account; userId: string }) {
  const [typed, setTyped] = useState("");
  const [wrong, setWrong] = useState(false);
  const [erase, setErase] = useState(false);
  const { busy, failure, run } = useTask({}, undefined, (late) => toast("bad", late));
  return (
    <form
      noValidate
      className="flex flex-col gap-4"
      onSubmit={(event) => {
        event.preventDefault();
        const other = typed.trim() !== userId;
        setWrong(other);
        if (other) return;
        void run(async () => {
          await account.close(erase);
          toast("good", t("account.closed"));
        });
      }}
    >
      <Checkbox
        label={t("account.closeErase")}
        hint={t("account.closeEraseText")}
        checked={erase}
        onChange={setErase}
      />
      <TextField
        label={t("account.closeType", { user: userId })}
        error={wrong ? t("account.closeTypeWrong", { user: userId }) : undefined}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        maxLength={255}
      />
      {failure !== null ? (
        <p role="alert" className="text-[13px] leading-snug text-bad wrap-anywhere">
          {failure}
        </p>
      ) : null}
      <Button type="submit" variant="danger" size="large" busy={busy}>
        {t("account.closeAction")}
      </Button>
    </form>
  );
}
