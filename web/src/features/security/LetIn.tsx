import { Laptop, ShieldAlert, Smartphone } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { formatTime, t } from "../../i18n";
import type { Account, WaitingDevice } from "../../stores/account";
import { useValue } from "../../stores/context";
import { useTask } from "../../stores/useTask";
import { Button, Callout } from "../../ui/core";
import { Form, TextField } from "../../ui/form";
import { Card, CardBody } from "../../ui/page";
import { toast } from "../../ui/toast";

interface Props {
  account: Account;
  /** There is one session more, soon. */
  onAllowed(): void;
}

interface Found {
  code: string;
  device: WaitingDevice;
}

/** Lets a device in that shows a code: first one sees what waits with it. */
export function LetIn({ account, onAllowed }: Props) {
  const arrived = useValue(account.arrivedLink);
  const [code, setCode] = useState("");
  const [missing, setMissing] = useState(false);
  const [found, setFound] = useState<Found | null>(null);
  const { busy, failure, run, clear } = useTask({ M_NOT_FOUND: t("letIn.unknown") });
  const latest = useRef("");
  const card = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const left = useRef(false);
  // Whoever has decided goes on where the next code would be: the button that they pressed is gone.
  useEffect(() => {
    if (left.current && found === null) field.current?.focus({ preventScroll: true });
    left.current = false;
  }, [found]);

  function look(typed: string): void {
    setMissing(typed === "");
    if (typed === "") return;
    latest.current = typed;
    void run(async () => {
      const device = await account.lookAtLink(typed);
      if (latest.current === typed) setFound({ code: typed, device });
    });
  }

  useEffect(() => {
    // Asked for anew: the effect may run twice.
    const scanned = account.arrivedLink.get();
    if (scanned === null) return;
    account.forgetLink();
    setCode(scanned);
    setFound(null);
    look(scanned);
    card.current?.scrollIntoView({ block: "nearest" });
    // eslint-disable-next-line react-hooks/exhaustive-deps -- a code is looked at once, when somebody comes with it
  }, [arrived, account]);

  function leave(): void {
    left.current = true;
    setFound(null);
    setCode("");
    clear();
  }

  return (
    <div ref={card}>
      <Card title={t("letIn.title")} text={found === null ? t("letIn.text") : undefined}>
        <CardBody>
          {found === null ? (
            <Form action={t("letIn.look")} busy={busy} failure={failure} onSubmit={() => look(code.trim())}>
              <TextField
                ref={field}
                label={t("letIn.code")}
                hint={t("letIn.codeHint")}
                error={missing ? t("letIn.codeMissing") : undefined}
                value={code}
                onChange={(event) => {
                  setCode(event.target.value);
                  setMissing(false);
                }}
                autoComplete="off"
                autoCapitalize="characters"
                spellCheck={false}
                maxLength={40}
                className="[&_input]:font-mono"
              />
            </Form>
          ) : (
            <Decision
              key={found.code}
              account={account}
              found={found}
              onLeave={leave}
              onAllowed={() => {
                leave();
                onAllowed();
              }}
            />
          )}
        </CardBody>
      </Card>
    </div>
  );
}

function Decision({
  account,
  found: { code, device },
  onLeave,
  onAllowed,
}: {
  account: Account;
  found: Found;
  onLeave(): void;
  onAllowed(): void;
}) {
  const allow = useTask({ M_NOT_FOUND: t("letIn.gone") });
  const refuse = useTask({ M_NOT_FOUND: t("letIn.gone") });
  const heading = useRef<HTMLHeadingElement>(null);
  const busy = allow.busy || refuse.busy;
  const failure = allow.failure ?? refuse.failure;
  // What was found is read out, and all of it comes into sight: the warning stands below it.
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
    heading.current?.closest("section")?.scrollIntoView({ block: "center" });
  }, []);
  const name = device.name === "" ? t("settings.unnamed") : device.name;

  return (
    <div className="flex flex-col gap-4">
      <div className="flex items-start gap-3">
        <span
          aria-hidden
          className="flex size-10 shrink-0 items-center justify-center rounded-xl bg-sunken text-ink-2 [&_svg]:size-5"
        >
          {/Android|iOS/.test(device.name) ? <Smartphone /> : <Laptop />}
        </span>
        <div className="min-w-0 flex-1">
          <h3 ref={heading} tabIndex={-1} className="text-sm font-medium outline-none wrap-anywhere">
            {t("letIn.asks", { name })}
          </h3>
          <Facts code={code} device={device} />
        </div>
      </div>
      <Callout tone="warn" icon={<ShieldAlert />}>
        {t("letIn.warning")}
      </Callout>
      {failure !== null ? (
        <Callout tone="bad" role="alert">
          {failure}
        </Callout>
      ) : null}
      <div className="flex flex-wrap gap-2">
        <Button
          variant="primary"
          busy={allow.busy}
          disabled={busy}
          onClick={() => {
            refuse.clear();
            void allow.run(async () => {
              await account.allowLink(code);
              toast("good", t("letIn.allowed", { name }));
              onAllowed();
            });
          }}
        >
          {t("letIn.allow")}
        </Button>
        <Button
          busy={refuse.busy}
          disabled={busy}
          onClick={() => {
            allow.clear();
            void refuse.run(async () => {
              await account.refuseLink(code);
              toast("good", t("letIn.refused", { name }));
              onLeave();
            });
          }}
          className="text-bad!"
        >
          {t("letIn.refuse")}
        </Button>
        <Button variant="quiet" disabled={busy} onClick={onLeave}>
          {t("letIn.other")}
        </Button>
      </div>
    </div>
  );
}

/** What the server knows of it, beside the name, which whoever asks can have chosen. */
function Facts({ code, device }: Found) {
  const facts: [string, string][] = [
    [t("letIn.code"), code],
    ...(device.client === "" ? [] : [[t("letIn.client"), device.client] satisfies [string, string]]),
    [t("letIn.address"), device.address === "" ? t("letIn.addressUnknown") : device.address],
    ...(device.since === null ? [] : [[t("letIn.since"), formatTime(device.since)] satisfies [string, string]]),
  ];
  return (
    <dl className="mt-2 grid grid-cols-[auto_1fr] gap-x-4 gap-y-1 text-[13px]">
      {facts.map(([what, value]) => (
        <div key={what} className="contents">
          <dt className="text-ink-2">{what}</dt>
          <dd className="min-w-0 wrap-anywhere">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
