import { CircleAlert, Copy, Download } from "lucide-react";
import { type FormEvent, type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { t } from "../../i18n";
import { describe } from "../../stores/failed";
import { Button, Callout, Mark, Skeleton } from "../../ui/core";
import { copyText } from "../../ui/copy";
import { saveText } from "../../ui/download";
import { TextField } from "../../ui/form";
import { useTitle } from "../../ui/title";

interface Props {
  userId: string;
  /** Null while it is being made. */
  recoveryKey: string | null;
  /** Why it could not be made. */
  failure?: string | null;
  onRetry(): void;
  onSignOut(): void;
  /** Publishes the identity. */
  onConfirmed(): Promise<void>;
  /** For the gallery. */
  initialStep?: "show" | "confirm";
}

/** Shows the recovery key, and goes on only once the person has shown to have it. */
export function RecoveryKey({
  userId,
  recoveryKey,
  failure,
  onRetry,
  onSignOut,
  onConfirmed,
  initialStep = "show",
}: Props) {
  const [step, setStep] = useState<"show" | "confirm">(initialStep);
  useTitle(t(step === "show" ? "recovery.title" : "recovery.confirmTitle"));
  return (
    <div className="h-full overflow-y-auto bg-side">
      <main className="mx-auto flex min-h-full w-full max-w-[32rem] flex-col justify-center px-4 py-10">
        <div className="mb-7 self-center">
          <Mark size={36} />
        </div>
        <section className="rounded-2xl border border-line bg-raised p-6 shadow-card sm:p-8">
          {failure !== null && failure !== undefined ? (
            <>
              <Heading>{t("recovery.title")}</Heading>
              <div className="mt-4">
                <Callout
                  tone="bad"
                  role="alert"
                  icon={<CircleAlert />}
                  action={<Button onClick={onRetry}>{t("retry")}</Button>}
                >
                  {t("recovery.failed", { reason: failure })}
                </Callout>
              </div>
              <Button size="large" onClick={onSignOut} className="mt-5 w-full">
                {t("unlock.signOut")}
              </Button>
            </>
          ) : recoveryKey === null ? (
            <div role="status">
              <h1 className="text-xl font-semibold tracking-tight">{t("recovery.making")}</h1>
              <p className="mt-1.5 mb-6 text-sm text-ink-2">{t("recovery.makingText")}</p>
              <Skeleton className="h-32 w-full" />
            </div>
          ) : step === "show" ? (
            <Show userId={userId} recoveryKey={recoveryKey} onKept={() => setStep("confirm")} />
          ) : (
            <ConfirmKey recoveryKey={recoveryKey} onBack={() => setStep("show")} onConfirmed={onConfirmed} />
          )}
        </section>
      </main>
    </div>
  );
}

/** It takes the focus when it comes: what was pressed before is gone, and a screen reader goes on here. */
function Heading({ children }: { children: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <h1 ref={heading} tabIndex={-1} className="text-xl font-semibold tracking-tight outline-none">
      {children}
    </h1>
  );
}

function StepNumber({ n }: { n: number }) {
  return <p className="mb-2 text-[13px] font-medium text-ink-3">{t("recovery.step", { n })}</p>;
}

function Show({ userId, recoveryKey, onKept }: { userId: string; recoveryKey: string; onKept(): void }) {
  function download(): void {
    const title = t("recovery.file", { user: userId });
    saveText(
      `${title}.txt`.replace(/[^\p{L}\p{N} ._-]/gu, "_"),
      `${title}\n\n${recoveryKey}\n\n${t("recovery.fileText")}\n`,
    );
  }
  return (
    <>
      <StepNumber n={1} />
      <Heading>{t("recovery.title")}</Heading>
      <p className="mt-1.5 text-sm leading-relaxed text-ink-2">{t("recovery.text")}</p>
      <ol
        aria-label={t("recovery.key")}
        data-testid="recovery-key"
        className="my-6 grid grid-cols-3 gap-x-2 gap-y-1 rounded-xl border border-line bg-sunken px-4 py-4 sm:grid-cols-4 sm:px-5"
      >
        {recoveryKey.split(" ").map((group, i) => (
          <li key={i} className="flex items-baseline gap-2 py-1">
            <span aria-hidden className="w-4 text-right text-[11px] text-ink-3 tabular-nums select-none">
              {i + 1}
            </span>
            <span className="font-mono text-[15px] font-medium tracking-wide">{group}</span>
          </li>
        ))}
      </ol>
      <div className="flex flex-col gap-2 sm:flex-row">
        <Button onClick={() => void copyText(recoveryKey)} className="sm:flex-1">
          <Copy className="size-4" /> {t("recovery.copy")}
        </Button>
        <Button onClick={download} className="sm:flex-1">
          <Download className="size-4" /> {t("recovery.download")}
        </Button>
      </div>
      <Button variant="primary" size="large" onClick={onKept} className="mt-5 w-full">
        {t("recovery.kept")}
      </Button>
    </>
  );
}

function ConfirmKey({
  recoveryKey,
  onBack,
  onConfirmed,
}: {
  recoveryKey: string;
  onBack(): void;
  onConfirmed(): Promise<void>;
}) {
  const groups = useMemo(() => recoveryKey.split(" "), [recoveryKey]);
  const [asked] = useState(() => pickTwo(groups.length));
  const [typed, setTyped] = useState<[string, string]>(["", ""]);
  const [wrong, setWrong] = useState<number | null>(null);
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<string | null>(null);

  async function submit(event: FormEvent): Promise<void> {
    event.preventDefault();
    const bad = asked.findIndex((group, i) => typed[i]?.trim() !== groups[group]);
    setWrong(bad === -1 ? null : bad);
    if (bad !== -1) return;
    setBusy(true);
    setFailure(null);
    try {
      await onConfirmed();
    } catch (error) {
      setFailure(describe(error));
      setBusy(false);
    }
  }

  return (
    <form noValidate onSubmit={(event) => void submit(event)}>
      <StepNumber n={2} />
      <h1 className="text-xl font-semibold tracking-tight">{t("recovery.confirmTitle")}</h1>
      <p className="mt-1.5 mb-6 text-sm leading-relaxed text-ink-2">{t("recovery.confirmText")}</p>
      <div className="grid gap-4 sm:grid-cols-2">
        {asked.map((group, i) => (
          <TextField
            key={group}
            label={t("recovery.group", { n: group + 1 })}
            value={typed[i] ?? ""}
            onChange={(event) => setTyped(i === 0 ? [event.target.value, typed[1]] : [typed[0], event.target.value])}
            error={wrong === i ? t("recovery.wrongGroup", { n: group + 1 }) : undefined}
            autoComplete="off"
            autoCapitalize="none"
            autoCorrect="off"
            spellCheck={false}
            maxLength={12}
            autoFocus={i === 0}
          />
        ))}
      </div>
      {failure !== null ? (
        <div className="mt-4">
          <Callout tone="bad" role="alert" icon={<CircleAlert />}>
            {t("recovery.failed", { reason: failure })}
          </Callout>
        </div>
      ) : null}
      <Button type="submit" variant="primary" size="large" busy={busy} className="mt-6 w-full">
        {t("recovery.confirm")}
      </Button>
      <Button variant="quiet" onClick={onBack} className="mt-2 w-full">
        {t("recovery.showAgain")}
      </Button>
    </form>
  );
}

/** Two different places, in order; which ones cannot be known beforehand, so that the key has to be at hand. */
function pickTwo(count: number): [number, number] {
  const [a = 0, b = 0] = crypto.getRandomValues(new Uint32Array(2));
  const first = a % count;
  const second = (first + 1 + (b % Math.max(1, count - 1))) % count;
  return first < second ? [first, second] : [second, first];
}
