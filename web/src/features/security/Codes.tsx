import { Copy, Download, Printer, TriangleAlert } from "lucide-react";
import { useState } from "react";
import { formatDay, t } from "../../i18n";
import type { Account, Factors } from "../../stores/account";
import { useTask } from "../../stores/useTask";
import { Button, Callout } from "../../ui/core";
import { copyText } from "../../ui/copy";
import { saveText } from "../../ui/download";
import { Confirm, Dialog } from "../../ui/overlay";
import { Badge, Card, CardBody } from "../../ui/page";
import { toast } from "../../ui/toast";

/** From how many on people are told that they run out. */
const few = 3;

/** How many recovery codes are left, and new ones. */
export function RecoveryCodes({
  account,
  factors,
  onChanged,
}: {
  account: Account;
  factors: Factors;
  onChanged(codes?: string[]): void;
}) {
  const [asking, setAsking] = useState(false);
  const { busy, run } = useTask({}, (failure) => toast("bad", failure));
  const on = factors.totp || factors.passkeys > 0;
  const left = factors.recoveryCodes;
  return (
    <Card
      title={t("security.codes")}
      text={on ? t("security.codesText") : t("security.codesLater")}
      action={
        on ? (
          <div className="flex flex-wrap items-center gap-2">
            <Badge tone={left <= few ? "warn" : "plain"}>
              <span data-testid="codes-left">{t("security.codesLeft", { count: left })}</span>
            </Badge>
            <Button busy={busy} onClick={() => setAsking(true)}>
              {t("security.codesNew")}
            </Button>
          </div>
        ) : undefined
      }
    >
      {on && left <= few ? (
        <CardBody>
          <Callout tone="warn" icon={<TriangleAlert />}>
            {left === 0 ? t("security.codesNone") : t("security.codesFew")}
          </Callout>
        </CardBody>
      ) : null}
      <Confirm
        open={asking}
        onOpenChange={setAsking}
        title={t("security.codesNewTitle")}
        text={t("security.codesNewText")}
        action={t("security.codesNew")}
        onConfirm={() => {
          setAsking(false);
          void run(async () => onChanged(await account.newRecoveryCodes()));
        }}
      />
    </Card>
  );
}

/** The codes, this once. They can only be left by saying that they are kept. */
export function CodesDialog({ codes, userId, onKept }: { codes: string[]; userId: string; onKept(): void }) {
  const title = t("security.codesFile", { user: userId });
  const text = codes.join("\n");
  function download(): void {
    saveText(
      `${title}.txt`.replace(/[^\p{L}\p{N} ._-]/gu, "_"),
      `${title}\n${t("security.codesMade", { day: formatDay(Date.now(), 0) })}\n\n${text}\n\n${t("security.codesFileText")}\n`,
    );
  }
  return (
    <Dialog
      open={codes.length > 0}
      onOpenChange={() => {}}
      closable={false}
      wide
      className="print-sheet"
      title={t("security.codesTitle")}
      description={t("security.codesIntro")}
    >
      <p className="hidden print:block">
        {title}. {t("security.codesMade", { day: formatDay(Date.now(), 0) })}. {t("security.codesFileText")}
      </p>
      <ol
        aria-label={t("security.codes")}
        data-testid="recovery-codes"
        className="grid grid-cols-1 gap-x-6 rounded-xl border border-line bg-sunken px-4 py-3 sm:grid-cols-2"
      >
        {codes.map((code) => (
          <li key={code} className="py-1 font-mono text-[13px] font-medium tracking-wide whitespace-nowrap select-all">
            {code}
          </li>
        ))}
      </ol>
      <p className="mt-3 text-[13px] leading-snug text-ink-2">{t("security.codesWhere")}</p>
      <div className="mt-4 grid grid-cols-1 gap-2 sm:grid-cols-3 print:hidden">
        <Button onClick={() => void copyText(text)}>
          <Copy className="size-4" aria-hidden /> {t("security.codesCopy")}
        </Button>
        <Button onClick={download}>
          <Download className="size-4" aria-hidden /> {t("security.codesDownload")}
        </Button>
        <Button onClick={() => window.print()}>
          <Printer className="size-4" aria-hidden /> {t("security.codesPrint")}
        </Button>
      </div>
      <Button variant="primary" size="large" onClick={onKept} className="mt-4 w-full print:hidden">
        {t("security.codesKept")}
      </Button>
    </Dialog>
  );
}
