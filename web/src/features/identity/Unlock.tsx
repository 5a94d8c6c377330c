import { CircleAlert, FileKey2, KeyRound } from "lucide-react";
import { type FormEvent, useRef, useState } from "react";
import { t } from "../../i18n";
import { describe } from "../../stores/failed";
import { Button, Callout } from "../../ui/core";
import { TextField } from "../../ui/form";
import { useTitle } from "../../ui/title";

interface Props {
  userId: string;
  onUnlock(recoveryKey: string): Promise<void>;
  onSignOut(): void;
}

/** Base58 without what is easily confused, in groups: what a recovery key looks like inside a file. */
const keyPattern = /(?:[1-9A-HJ-NP-Za-km-z]{2,8} ){8,}[1-9A-HJ-NP-Za-km-z]{2,8}/;

export function Unlock({ userId, onUnlock, onSignOut }: Props) {
  useTitle(t("unlock.title"));
  const [key, setKey] = useState("");
  const [error, setError] = useState<string | undefined>();
  const [busy, setBusy] = useState(false);
  const picker = useRef<HTMLInputElement>(null);

  async function unlock(recoveryKey: string): Promise<void> {
    if (recoveryKey.trim() === "") {
      setError(t("unlock.missing"));
      return;
    }
    setBusy(true);
    setError(undefined);
    try {
      await onUnlock(recoveryKey.trim());
    } catch (reason) {
      setError(
        reason instanceof Error && reason.message === "wrong_key"
          ? t("unlock.wrong", { user: userId })
          : describe(reason),
      );
      setBusy(false);
    }
  }

  async function takeFile(file: File | undefined): Promise<void> {
    if (file === undefined) return;
    const found = file.size < 10_000 ? keyPattern.exec(await file.text()) : null;
    if (found === null) setError(t("unlock.fileBad"));
    else setKey(found[0]);
  }

  function submit(event: FormEvent): void {
    event.preventDefault();
    void unlock(key);
  }

  return (
    <div className="h-full overflow-y-auto bg-side">
      <main className="mx-auto flex min-h-full w-full max-w-[27rem] flex-col justify-center px-4 py-10">
        <section className="rounded-2xl border border-line bg-raised p-6 shadow-card sm:p-8">
          <span className="mb-5 flex size-11 items-center justify-center rounded-xl bg-selected text-accent-ink">
            <KeyRound className="size-5" aria-hidden />
          </span>
          <h1 className="text-xl font-semibold tracking-tight">{t("unlock.title")}</h1>
          <p className="mt-1.5 mb-6 text-sm leading-relaxed text-ink-2">{t("unlock.text")}</p>
          <form noValidate className="flex flex-col gap-4" onSubmit={submit}>
            <TextField
              label={t("unlock.key")}
              value={key}
              onChange={(event) => setKey(event.target.value)}
              error={error}
              autoComplete="off"
              autoCapitalize="none"
              spellCheck={false}
              maxLength={200}
              autoFocus
              suffix={
                <Button variant="quiet" size="small" className="mr-1.5" onClick={() => picker.current?.click()}>
                  <FileKey2 className="size-4" /> {t("unlock.file")}
                </Button>
              }
            />
            <input
              ref={picker}
              type="file"
              accept=".txt,text/plain"
              hidden
              onChange={(event) => {
                void takeFile(event.target.files?.[0]);
                event.target.value = "";
              }}
            />
            <Button type="submit" variant="primary" size="large" busy={busy}>
              {t("unlock.action")}
            </Button>
          </form>
          <details className="group mt-5 text-sm">
            <summary className="touch w-fit cursor-pointer rounded font-medium text-ink-2 hover:text-ink">
              {t("unlock.why")}
            </summary>
            <div className="mt-2">
              <Callout icon={<CircleAlert />}>{t("unlock.whyText")}</Callout>
            </div>
          </details>
        </section>
        <Button variant="quiet" onClick={onSignOut} className="mt-4 self-center">
          {t("unlock.signOut")}
        </Button>
      </main>
    </div>
  );
}
