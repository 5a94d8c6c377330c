import { CircleAlert, ExternalLink, Fingerprint } from "lucide-react";
import { type FormEvent, useEffect, useState } from "react";
import { t } from "../../i18n";
import type { Answer, Asking, Confirming, FactorType, Refusal, Step } from "../../stores/confirm";
import { useValue } from "../../stores/context";
import { useComingBack } from "../../stores/useComingBack";
import { describeWait, useTask } from "../../stores/useTask";
import { Button, Callout } from "../../ui/core";
import { PasswordField, TextField } from "../../ui/form";
import { Dialog } from "../../ui/overlay";
import { bare } from "./codes";

/** The one dialog in which people confirm that it is them, whatever has asked for it. */
export function ConfirmDialog({ confirming }: { confirming: Confirming }) {
  const asking = useValue(confirming.asking);
  return (
    <Dialog
      open={asking !== null}
      onOpenChange={(open) => {
        if (!open) asking?.cancel();
      }}
      title={t("confirm.title")}
    >
      {asking !== null ? <Question asking={asking} /> : null}
    </Dialog>
  );
}

/** A way to answer: a step, and of a second factor one kind. */
type Way = { kind: "password" } | { kind: FactorType } | { kind: "elsewhere"; stage: string; path: string };

function waysOf(steps: Step[]): Way[] {
  return steps.flatMap((step): Way[] => {
    if (step.kind === "factor") return step.types.map((kind) => ({ kind }));
    if (step.kind === "dummy") return [];
    return [step];
  });
}

function same(a: Way, b: Way): boolean {
  return a.kind === b.kind && (a.kind !== "elsewhere" || b.kind !== "elsewhere" || a.stage === b.stage);
}

function introduction(way: Way, user: string): string {
  switch (way.kind) {
    case "password":
      return t("confirm.passwordText", { user });
    case "elsewhere":
      return way.stage === "m.login.sso" ? t("confirm.pageSso") : t("confirm.pageText");
    default:
      return t("confirm.factorText");
  }
}

function Question({ asking }: { asking: Asking }) {
  const ways = waysOf(asking.steps);
  const [chosen, choose] = useState<Way | null>(null);
  const way = ways.find((each) => chosen !== null && same(each, chosen)) ?? ways[0];
  if (way === undefined) return <p className="text-sm">{t("confirm.impossible")}</p>;
  const others = ways.filter((each) => !same(each, way));
  return (
    <>
      <p className="mb-4 text-sm leading-relaxed text-ink-2">{introduction(way, asking.userId)}</p>
      {way.kind === "passkey" ? (
        <Passkey asking={asking} />
      ) : way.kind === "elsewhere" ? (
        <Elsewhere asking={asking} path={way.path} />
      ) : (
        <Typed key={way.kind} kind={way.kind} asking={asking} />
      )}
      {others.length > 0 ? (
        <ul className="mt-3 flex flex-col gap-1 border-t border-line pt-3">
          {others.map((each) => (
            <li key={each.kind === "elsewhere" ? each.stage : each.kind}>
              <Button
                variant="quiet"
                className="w-full justify-start! whitespace-normal!"
                disabled={asking.busy}
                onClick={() => choose(each)}
              >
                {t(labels[each.kind])}
              </Button>
            </li>
          ))}
        </ul>
      ) : null}
    </>
  );
}

const labels = {
  password: "confirm.usePassword",
  totp: "confirm.useTotp",
  passkey: "confirm.usePasskey",
  recovery: "confirm.useRecovery",
  elsewhere: "confirm.usePage",
} as const;

/** Why the last answer did not do; `wrong` is the sentence for a wrong one. */
function Refused({ refusal, wrong }: { refusal: Refusal | null; wrong: string }) {
  const until = refusal?.why === "limited" ? refusal.until : null;
  useTicking(until);
  if (refusal === null || (until !== null && until <= Date.now())) return null;
  const sentence = {
    wrong,
    limited: until === null ? "" : describeWait(until),
    offline: t("confirm.offline"),
    expired: t("confirm.expired"),
    unfinished: t("confirm.unfinished"),
    unreadable: t("failed.authenticator"),
  }[refusal.why];
  return (
    <Callout tone="bad" role="alert" icon={<CircleAlert />}>
      {sentence}
    </Callout>
  );
}

/** Draws anew each second until a time has come. */
function useTicking(until: number | null): void {
  const [, tick] = useState(0);
  useEffect(() => {
    if (until === null) return undefined;
    const timer = setInterval(() => {
      tick((n) => n + 1);
      if (until <= Date.now()) clearInterval(timer);
    }, 1000);
    return () => clearInterval(timer);
  }, [until]);
}

function useBlocked({ busy, refusal }: Asking): boolean {
  const until = refusal?.why === "limited" ? refusal.until : null;
  useTicking(until);
  return busy || (until !== null && until > Date.now());
}

type TypedKind = "password" | Exclude<FactorType, "passkey">;

function answerOf(kind: TypedKind, typed: string): Answer | null {
  if (kind === "password") return typed === "" ? null : { kind, password: typed };
  const code = bare(typed);
  if (code === "" || (kind === "totp" && !/^\d{6}$/.test(code))) return null;
  return { kind: "factor", type: kind, code };
}

/** What is typed: the password, or a code. */
function Typed({ kind, asking }: { kind: TypedKind; asking: Asking }) {
  const [typed, setTyped] = useState("");
  const [missing, setMissing] = useState(false);
  const blocked = useBlocked(asking);
  const words = {
    password: { wrong: t("confirm.wrongPassword"), missing: t("confirm.passwordMissing") },
    totp: { wrong: t("confirm.wrongCode"), missing: t("confirm.codeMissing") },
    recovery: { wrong: t("confirm.wrongRecovery"), missing: t("confirm.recoveryMissing") },
  }[kind];

  function submit(event: FormEvent): void {
    event.preventDefault();
    const answer = answerOf(kind, typed);
    setMissing(answer === null);
    if (answer === null || blocked) return;
    asking.answer(answer);
  }
  // A code works once, and a wrong one never: the next is typed into an empty field. What nobody has looked at stays.
  const { refusal } = asking;
  useEffect(() => {
    if (kind !== "password" && refusal?.why === "wrong") setTyped("");
  }, [kind, refusal]);

  const field = {
    value: typed,
    onChange: (event: { target: { value: string } }) => setTyped(event.target.value),
    error: missing ? words.missing : undefined,
    autoFocus: true,
    spellCheck: false,
    autoCapitalize: "none",
  };
  return (
    <form noValidate className="flex flex-col gap-4" onSubmit={submit}>
      {kind === "password" ? (
        <>
          {/* For programs that keep passwords: whose it is. */}
          <input type="text" name="username" autoComplete="username" value={asking.userId} readOnly hidden />
          <PasswordField {...field} label={t("confirm.password")} autoComplete="current-password" maxLength={512} />
        </>
      ) : kind === "totp" ? (
        <TextField
          {...field}
          label={t("confirm.code")}
          hint={t("confirm.codeHint")}
          inputMode="numeric"
          autoComplete="one-time-code"
          maxLength={16}
        />
      ) : (
        <TextField
          {...field}
          label={t("confirm.recovery")}
          hint={t("confirm.recoveryHint")}
          autoComplete="off"
          maxLength={64}
        />
      )}
      <Refused refusal={asking.refusal} wrong={words.wrong} />
      <Button type="submit" variant="primary" size="large" busy={asking.busy} aria-disabled={blocked}>
        {t("confirm.action")}
      </Button>
    </form>
  );
}

function Passkey({ asking }: { asking: Asking }) {
  const { busy, failure, run } = useTask();
  const [problem, setProblem] = useState<string | null>(null);
  const blocked = useBlocked(asking);
  async function ask(): Promise<void> {
    setProblem(null);
    await run(async () => {
      const stands = await asking.answerWithPasskey();
      if (stands !== null) setProblem(t(`passkey.${stands}`));
    });
  }
  const why = problem ?? failure;
  return (
    <div className="flex flex-col gap-4">
      <p className="text-sm leading-relaxed">{t("confirm.passkeyText")}</p>
      {why !== null ? (
        <Callout tone="bad" role="alert" icon={<CircleAlert />}>
          {why}
        </Callout>
      ) : (
        <Refused refusal={asking.refusal} wrong={t("confirm.wrongPasskey")} />
      )}
      <Button
        variant="primary"
        size="large"
        busy={busy || asking.busy}
        disabled={blocked}
        autoFocus
        onClick={() => void ask()}
      >
        <Fingerprint className="size-5" aria-hidden /> {t("confirm.passkeyAction")}
      </Button>
    </div>
  );
}

/** A stage on a page of the server. The page cannot tell this one that it is done: when the person comes back, it is asked. */
function Elsewhere({ asking, path }: { asking: Asking; path: string }) {
  const [opened, setOpened] = useState(false);
  const blocked = useBlocked(asking);
  useComingBack(() => {
    if (opened && !blocked) asking.answer({ kind: "elsewhere" });
  });
  return (
    <div className="flex flex-col gap-3">
      <a
        href={path}
        target="_blank"
        rel="noopener noreferrer"
        onClick={() => setOpened(true)}
        className="inline-flex h-11 items-center justify-center gap-2 rounded-lg bg-accent px-5 text-[15px] font-medium text-on-accent hover:bg-accent-hover"
      >
        <ExternalLink className="size-4" aria-hidden /> {t("confirm.pageOpen")}
      </a>
      <Refused refusal={asking.refusal} wrong={t("confirm.unfinished")} />
      <Button size="large" busy={asking.busy} disabled={blocked} onClick={() => asking.answer({ kind: "elsewhere" })}>
        {t("confirm.pageDone")}
      </Button>
    </div>
  );
}
