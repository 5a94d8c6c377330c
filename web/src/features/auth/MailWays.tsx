import { CircleAlert, MailCheck } from "lucide-react";
import { useState } from "react";
import { t } from "../../i18n";
import type { AddressProof } from "../../sdk";
import { sayWait } from "../../stores/failed";
import { Button, Callout, Dots } from "../../ui/core";
import { TextButton, Ways } from "./Frame";
import { useWaiting } from "./useWaiting";

/** How long after a mail another one can be asked for. */
const pauseMs = 30_000;

interface Props {
  busy: boolean;
  failure: string | null;
  proof: AddressProof | null;
  waitUntil: number | null;
  /** What is waited for, in words; null where nothing is. */
  waiting: string | null;
  /** Looks now; without it there is no button for it. */
  onCheck?: () => void;
  /** Whether one was sent. */
  onResend(): Promise<boolean>;
  onChange(): void;
}

/** What one can do while a mail is on its way. */
export function MailWays({ busy, failure, proof, waitUntil, waiting, onCheck, onResend, onChange }: Props) {
  const [again, setAgain] = useState(false);
  const pause = useWaiting(Math.max((proof?.sentAt ?? 0) + pauseMs, waitUntil ?? 0));
  return (
    <div className="flex flex-col gap-4">
      {failure !== null ? (
        <Callout tone="bad" role="alert" icon={<CircleAlert />}>
          {failure}
        </Callout>
      ) : again ? (
        <Callout tone="good" role="status" icon={<MailCheck />}>
          {t("mail.sent")}
        </Callout>
      ) : (
        <Callout icon={<MailCheck />}>{t("mail.spam")}</Callout>
      )}
      {waiting !== null ? (
        <p className="flex items-center gap-2.5 text-sm text-ink-2">
          <Dots /> {waiting}
        </p>
      ) : null}
      {onCheck !== undefined ? (
        <Button variant="primary" size="large" busy={busy} onClick={onCheck}>
          {t("mail.check")}
        </Button>
      ) : null}
      <Ways>
        <TextButton
          disabled={busy || pause > 0}
          onClick={() => {
            setAgain(false);
            void onResend().then(setAgain);
          }}
        >
          {pause > 0 ? t("mail.resendIn", { wait: sayWait(pause) }) : t("mail.resend")}
        </TextButton>
        <TextButton onClick={onChange}>{t("mail.change")}</TextButton>
      </Ways>
    </div>
  );
}
