import { useEffect, useState } from "react";
import { t } from "../../i18n";
import type { Account } from "../../stores/account";
import { useLoaded } from "../../stores/useLoaded";
import { Skeleton } from "../../ui/core";
import { Unavailable } from "../../ui/page";
import { Authenticator } from "./Authenticator";
import { CodesDialog } from "./Codes";
import { Passkeys } from "./Passkeys";

interface Props {
  account: Account;
  userId: string;
  /** There is a second factor now, and its recovery codes are kept. */
  onDone(): void;
}

/** Setting up the first second factor, for somebody whom the server lets do nothing else. */
export function FirstFactor({ account, userId, onDone }: Props) {
  const factors = useLoaded(account.factors);
  const passkeys = useLoaded(account.passkeys);
  const [codes, setCodes] = useState<string[]>([]);
  const on = factors.value !== null && (factors.value.totp || factors.value.passkeys > 0);
  const done = on && codes.length === 0;
  useEffect(() => {
    if (done) onDone();
  }, [done, onDone]);
  if (factors.value === null)
    return factors.failure !== null ? (
      <Unavailable failure={factors.failure} onRetry={factors.reload} />
    ) : (
      <div role="status">
        <span className="sr-only">{t("settingsPages.loading")}</span>
        <Skeleton className="h-28 w-full rounded-2xl!" />
      </div>
    );
  function changed(fresh: string[] = []): void {
    factors.reload();
    passkeys.reload();
    if (fresh.length > 0) setCodes(fresh);
  }
  return (
    <div className="flex flex-col gap-4">
      <Authenticator account={account} factors={factors.value} onChanged={changed} />
      <Passkeys account={account} factors={factors.value} list={passkeys} onChanged={changed} />
      <CodesDialog codes={codes} userId={userId} onKept={() => setCodes([])} />
    </div>
  );
}
