import { Mail, MailQuestion, Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { formatShort, t } from "../../i18n";
import type { Account, EmailAddress, WaitingEmail } from "../../stores/account";
import { useValue } from "../../stores/context";
import { useComingBack } from "../../stores/useComingBack";
import { type Loaded, useLoaded } from "../../stores/useLoaded";
import { useTask } from "../../stores/useTask";
import { Button, Callout } from "../../ui/core";
import { Form, TextField } from "../../ui/form";
import { IconButton } from "../../ui/icon";
import { Dialog } from "../../ui/overlay";
import { Card, CardBody, Row } from "../../ui/page";
import { toast } from "../../ui/toast";
import { Listed, Removal } from "./Listed";

/** The addresses of the account: add with a mail, remove. */
export function Emails({ account, possible }: { account: Account; possible: boolean }) {
  const list = useLoaded(account.emails);
  const waiting = useValue(account.waitingEmail);
  const [adding, setAdding] = useState(false);
  return (
    <Card
      title={t("account.emailTitle")}
      text={possible ? t("account.emailText") : t("account.emailOff")}
      action={
        possible && waiting === null ? (
          <Button onClick={() => setAdding(true)}>
            <Plus className="size-4" aria-hidden /> {t("account.emailAdd")}
          </Button>
        ) : undefined
      }
    >
      {waiting !== null ? <Waiting account={account} waiting={waiting} onAdded={list.reload} /> : null}
      <List account={account} list={list} quiet={!possible || waiting !== null} />
      <Dialog open={adding} onOpenChange={setAdding} title={t("account.emailAdd")}>
        <Add account={account} onSent={() => setAdding(false)} />
      </Dialog>
    </Card>
  );
}

const words = () => ({
  M_INVALID_PARAM: t("account.emailBad"),
  M_THREEPID_IN_USE: t("account.emailTaken"),
  M_TOO_LARGE: t("account.emailMany"),
});

function Add({ account, onSent }: { account: Account; onSent(): void }) {
  const [typed, setTyped] = useState("");
  const [error, setError] = useState<string | undefined>();
  const { busy, failure, run } = useTask(words(), undefined, (late) => toast("bad", late));
  return (
    <Form
      action={t("account.emailSend")}
      busy={busy}
      failure={failure}
      onSubmit={() => {
        const address = typed.trim();
        // What an address may be the server knows; this only catches a slip.
        const wrong =
          address === "" ? t("account.emailMissing") : /.@./.test(address) ? undefined : t("account.emailBad");
        setError(wrong);
        if (wrong !== undefined) return;
        void run(async () => {
          await account.mailTo(address);
          onSent();
        });
      }}
    >
      <TextField
        label={t("account.email")}
        error={error}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        type="email"
        autoComplete="email"
        autoCapitalize="none"
        spellCheck={false}
        maxLength={254}
      />
    </Form>
  );
}

/** A mail is on its way: the person says when the link was opened, and coming back to this page says it too. */
function Waiting({ account, waiting, onAdded }: { account: Account; waiting: WaitingEmail; onAdded(): void }) {
  const { busy, failure, run } = useTask(words());
  const again = useTask(words(), (sentence) => toast("bad", sentence));
  const [notYet, setNotYet] = useState(false);
  const { address } = waiting;

  async function finish(quiet: boolean): Promise<void> {
    setNotYet(false);
    await run(async () => {
      if (await account.finishEmail()) {
        toast("good", t("account.emailAdded", { address }));
        onAdded();
      } else setNotYet(!quiet);
    });
  }

  useComingBack(() => {
    if (!busy) void finish(true);
  });

  return (
    <CardBody>
      <div className="flex items-start gap-3">
        <MailQuestion className="mt-0.5 size-5 shrink-0 text-ink-2" aria-hidden />
        <div className="min-w-0 flex-1">
          <p role="status" className="text-sm font-medium wrap-anywhere">
            {t("account.emailWaiting", { address })}
          </p>
          <p className="mt-0.5 text-[13px] leading-snug text-ink-2">{t("account.emailWaitingText")}</p>
          <div className="mt-3 flex flex-wrap gap-2">
            <Button variant="primary" busy={busy} onClick={() => void finish(false)}>
              {t("account.emailOpened")}
            </Button>
            <Button
              busy={again.busy}
              onClick={() =>
                void again
                  .run(() => account.mailAgain())
                  .then((done) => done && toast("good", t("account.emailAgainDone")))
              }
            >
              {t("account.emailAgain")}
            </Button>
            <Button variant="quiet" onClick={() => account.forgetEmail()}>
              {t("cancel")}
            </Button>
          </div>
          {notYet || failure !== null ? (
            <div className="mt-3">
              <Callout tone={failure !== null ? "bad" : "warn"} role="alert">
                {failure ?? t("account.emailNotYet")}
              </Callout>
            </div>
          ) : null}
        </div>
      </div>
    </CardBody>
  );
}

function List({ account, list, quiet }: { account: Account; list: Loaded<EmailAddress[]>; quiet: boolean }) {
  const [removing, setRemoving] = useState<EmailAddress | null>(null);
  return (
    <>
      <Listed list={list} label={t("account.emailTitle")} none={quiet ? null : t("account.emailNone")}>
        {(email) => (
          <Row
            key={email.address}
            icon={<Mail />}
            title={email.address}
            note={t("account.emailSince", { when: formatShort(email.added) })}
            action={
              <IconButton
                label={t("account.emailRemove", { address: email.address })}
                tooltip={false}
                onClick={() => setRemoving(email)}
              >
                <Trash2 />
              </IconButton>
            }
          />
        )}
      </Listed>
      <Removal
        of={removing}
        onEnd={() => setRemoving(null)}
        title={({ address }) => t("account.emailRemoveTitle", { address })}
        text={t("account.emailRemoveText")}
        remove={({ address }) => account.removeEmail(address)}
        done={t("account.emailRemoved")}
        onRemoved={list.reload}
      />
    </>
  );
}
