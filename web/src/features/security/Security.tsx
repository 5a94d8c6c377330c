import { CircleAlert, ShieldAlert, ShieldCheck, TriangleAlert } from "lucide-react";
import { useCallback, useState } from "react";
import { formatFull, t } from "../../i18n";
import type { Account, Factors } from "../../stores/account";
import { useLoaded } from "../../stores/useLoaded";
import { Callout, Skeleton } from "../../ui/core";
import { Unavailable } from "../../ui/page";
import { AppPasswords } from "./AppPasswords";
import { Authenticator } from "./Authenticator";
import { CodesDialog, RecoveryCodes } from "./Codes";
import { Passkeys } from "./Passkeys";

/** What protects the account: second factors, what stands in for them, and passwords for clients that know none. */
export function Security({ account, userId }: { account: Account; userId: string }) {
  const factors = useLoaded(account.factors);
  const passkeys = useLoaded(account.passkeys);
  const [codes, setCodes] = useState<string[]>([]);
  const { reload } = factors;
  const reloadKeys = passkeys.reload;
  /** Something about the factors is another now, and perhaps there are new codes to be kept. */
  const changed = useCallback(
    (fresh: string[] = []) => {
      if (fresh.length > 0) setCodes(fresh);
      reload();
      reloadKeys();
    },
    [reload, reloadKeys],
  );
  const now = factors.value;
  return (
    <div className="flex flex-col gap-5">
      {now === null ? (
        factors.failure !== null ? (
          <Unavailable failure={factors.failure} onRetry={reload} />
        ) : (
          <Loading />
        )
      ) : (
        <>
          {factors.failure !== null ? <Unavailable failure={factors.failure} onRetry={reload} /> : null}
          <Glance factors={now} />
          <Authenticator account={account} factors={now} onChanged={changed} />
          <Passkeys account={account} factors={now} list={passkeys} onChanged={changed} />
          <RecoveryCodes account={account} factors={now} onChanged={changed} />
        </>
      )}
      <AppPasswords account={account} />
      <CodesDialog codes={codes} userId={userId} onKept={() => setCodes([])} />
    </div>
  );
}

function Loading() {
  return (
    <div role="status" className="flex flex-col gap-5">
      <span className="sr-only">{t("settingsPages.loading")}</span>
      <Skeleton className="h-20 w-full rounded-2xl!" />
      <Skeleton className="h-24 w-full rounded-2xl!" />
      <Skeleton className="h-24 w-full rounded-2xl!" />
    </div>
  );
}

/** The state in one look. */
function Glance({ factors }: { factors: Factors }) {
  const on = factors.totp || factors.passkeys > 0;
  return (
    <div className="flex flex-col gap-3">
      <div className="flex items-center gap-4">
        <span
          aria-hidden
          className={
            on
              ? "flex size-12 shrink-0 items-center justify-center rounded-2xl bg-good-soft text-good"
              : "flex size-12 shrink-0 items-center justify-center rounded-2xl bg-warn-soft text-warn"
          }
        >
          {on ? <ShieldCheck className="size-6" /> : <ShieldAlert className="size-6" />}
        </span>
        <div className="min-w-0" role="status" data-testid="second-factor">
          <p className="text-[15px] font-semibold">{on ? t("security.on") : t("security.off")}</p>
          <p className="mt-0.5 text-[13px] leading-snug text-ink-2">
            {on ? t("security.onText") : t("security.offText")}
          </p>
        </div>
      </div>
      {factors.required ? <Demand factors={factors} on={on} /> : null}
    </div>
  );
}

/** What the rule of the server wants, and by when. */
function Demand({ factors: { due }, on }: { factors: Factors; on: boolean }) {
  if (on) return <Callout icon={<ShieldCheck />}>{t("security.requiredOn")}</Callout>;
  if (due === null)
    return (
      <Callout tone="warn" icon={<TriangleAlert />}>
        {t("security.requiredSoon")}
      </Callout>
    );
  return due > Date.now() ? (
    <Callout tone="warn" icon={<TriangleAlert />}>
      {t("security.requiredDue", { when: formatFull(due) })}
    </Callout>
  ) : (
    <Callout tone="bad" role="alert" icon={<CircleAlert />}>
      {t("security.requiredOver")}
    </Callout>
  );
}
