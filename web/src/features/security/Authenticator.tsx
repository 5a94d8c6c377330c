import { Copy } from "lucide-react";
import { type FormEvent, useEffect, useState } from "react";
import { t } from "../../i18n";
import type { Account, Factors, TotpEnrolment } from "../../stores/account";
import { useTask } from "../../stores/useTask";
import { Button, Skeleton } from "../../ui/core";
import { copyText } from "../../ui/copy";
import { Form, TextField } from "../../ui/form";
import { Confirm, Dialog } from "../../ui/overlay";
import { Badge, Card } from "../../ui/page";
import { toast } from "../../ui/toast";
import { bare, grouped } from "./codes";

interface Props {
  account: Account;
  factors: Factors;
  onChanged(codes?: string[]): void;
}

/** The authenticator app: set up, replace, remove. */
export function Authenticator({ account, factors, onChanged }: Props) {
  const [enrolment, setEnrolment] = useState<TotpEnrolment | null>(null);
  const [removing, setRemoving] = useState(false);
  const begin = useTask({}, (failure) => toast("bad", failure));
  const remove = useTask({ M_FORBIDDEN: t("security.demanded") }, (failure) => toast("bad", failure));
  const last = factors.totp && factors.passkeys === 0;
  return (
    <Card
      title={t("security.app")}
      text={t("security.appText")}
      action={
        <div className="flex flex-wrap items-center gap-2">
          {factors.totp ? <Badge tone="good">{t("security.appOn")}</Badge> : null}
          <Button
            busy={begin.busy}
            variant={factors.totp || factors.passkeys > 0 ? "secondary" : "primary"}
            onClick={() => void begin.run(async () => setEnrolment(await account.beginTotp()))}
            data-testid="totp-set-up"
          >
            {factors.totp ? t("security.replace") : t("security.setUp")}
          </Button>
          {factors.totp && !(last && factors.required) ? (
            <Button busy={remove.busy} onClick={() => setRemoving(true)} data-testid="totp-remove">
              {t("security.remove")}
            </Button>
          ) : null}
        </div>
      }
    >
      <Dialog
        open={enrolment !== null}
        onOpenChange={(open) => {
          if (!open) setEnrolment(null);
        }}
        title={t("security.enrolTitle")}
        description={t("security.enrolScan")}
      >
        {enrolment !== null ? (
          <Enrol
            enrolment={enrolment}
            account={account}
            onDone={(codes) => {
              setEnrolment(null);
              toast("good", t("security.added"));
              onChanged(codes);
            }}
          />
        ) : null}
      </Dialog>
      <Confirm
        open={removing}
        onOpenChange={setRemoving}
        title={t("security.removeAppTitle")}
        text={last ? t("security.removeLastText") : t("security.removeAppText")}
        action={t("security.remove")}
        danger
        onConfirm={() => {
          setRemoving(false);
          void remove
            .run(() => account.removeTotp())
            .then((done) => {
              if (done) toast("good", t("security.removed"));
              onChanged();
            });
        }}
      />
    </Card>
  );
}

/** The picture as a blob: the policy of the page allows those, and the server has drawn it already. */
function usePicture(bytes: TotpEnrolment["picture"]): string | null {
  const [url, setUrl] = useState<string | null>(null);
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [bytes]);
  return url;
}

/** The picture and the key for the app, and the code that shows that it has them. */
export function Enrol({
  enrolment,
  account,
  onDone,
}: {
  enrolment: TotpEnrolment;
  account: Account;
  onDone(codes: string[]): void;
}) {
  const picture = usePicture(enrolment.picture);
  const [typed, setTyped] = useState("");
  const [missing, setMissing] = useState(false);
  const confirm = useTask({ M_FORBIDDEN: t("security.enrolWrong"), M_NOT_FOUND: t("security.enrolOver") });

  function submit(event: FormEvent): void {
    event.preventDefault();
    const code = bare(typed);
    const right = /^\d{6}$/.test(code);
    setMissing(!right);
    if (!right) return;
    void confirm.run(async () => onDone(await account.confirmTotp(code)));
  }

  return (
    <div className="flex flex-col gap-5">
      <div className="mx-auto rounded-xl border border-line bg-white p-3">
        {picture === null ? (
          <Skeleton className="size-64" />
        ) : (
          <img
            src={picture}
            alt={t("security.qr")}
            width={256}
            height={256}
            className="block size-64 [image-rendering:pixelated]"
          />
        )}
      </div>
      <div>
        <p id="totp-key" className="text-[13px] leading-snug text-ink-2">
          {t("security.noScan")}
        </p>
        <div className="mt-1.5 flex items-center gap-2 rounded-lg border border-line bg-sunken py-1 pr-1 pl-3">
          <code
            aria-label={t("security.key")}
            data-testid="totp-secret"
            className="min-w-0 flex-1 font-mono text-[13px] leading-relaxed select-all"
          >
            {grouped(enrolment.secret)}
          </code>
          <Button size="small" variant="quiet" onClick={() => void copyText(enrolment.secret)}>
            <Copy className="size-4" aria-hidden /> {t("security.copyKey")}
          </Button>
        </div>
      </div>
      <Form action={t("security.enrolAction")} busy={confirm.busy} failure={confirm.failure} onSubmit={submit}>
        <TextField
          label={t("security.enrolCode")}
          hint={t("security.enrolHint")}
          error={missing ? t("confirm.codeMissing") : undefined}
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          inputMode="numeric"
          autoComplete="one-time-code"
          maxLength={16}
        />
      </Form>
    </div>
  );
}
