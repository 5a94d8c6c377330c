import { CircleAlert, ExternalLink } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { useStore } from "zustand";
import { currentLanguage, t } from "../../i18n";
import type { Policy } from "../../sdk";
import type { SignUp } from "../../stores/signUp";
import { Button, Callout } from "../../ui/core";
import { Checkbox, Form } from "../../ui/form";
import { TextButton, Ways } from "./Frame";
import { MailWays } from "./MailWays";
import { useFailure } from "./useWaiting";

/** A document in the language of the page, or else in English, or in any. */
function textOf({ texts }: Policy): { name: string; url: string } {
  const tags = Object.keys(texts);
  const wanted: string[] = [currentLanguage(), "en"];
  const found = wanted.flatMap((lang) => tags.filter((tag) => tag.toLowerCase().split(/[-_]/)[0] === lang));
  return texts[found[0] ?? tags[0] ?? ""] ?? { name: "", url: "" };
}

export function Terms({ model }: { model: SignUp }) {
  const state = useStore(model.state);
  const { policies, busy } = state;
  const { failure, waiting } = useFailure(state);
  const [agreed, setAgreed] = useState<ReadonlySet<string>>(new Set());
  const [missing, setMissing] = useState(false);
  const all = policies.every(({ id }) => agreed.has(id));

  return (
    <>
      <Form
        action={t("signUp.continue")}
        busy={busy}
        disabled={waiting}
        failure={failure ?? (missing && !all ? t("signUp.termsMissing") : null)}
        onSubmit={() => {
          setMissing(!all);
          if (all) void model.agree();
        }}
      >
        <ul className="flex flex-col gap-3">
          {policies.map((policy) => {
            const { name, url } = textOf(policy);
            return (
              <li key={policy.id} className="rounded-lg border border-line p-3">
                <Checkbox
                  label={t("signUp.termsAgree", { name })}
                  checked={agreed.has(policy.id)}
                  onChange={(on) => {
                    const next = new Set(agreed);
                    if (on) next.add(policy.id);
                    else next.delete(policy.id);
                    setAgreed(next);
                  }}
                />
                <a
                  href={url}
                  target="_blank"
                  rel="noopener noreferrer"
                  className="touch mt-1 ml-7.5 inline-flex items-center gap-1.5 rounded text-[13px] text-accent-ink hover:underline"
                >
                  {t("signUp.termsRead", { name })}
                  <ExternalLink className="size-3.5 shrink-0" aria-hidden />
                </a>
              </li>
            );
          })}
        </ul>
      </Form>
      <Ways>
        <TextButton onClick={() => model.change()}>{t("signUp.back")}</TextButton>
      </Ways>
    </>
  );
}

export function Mail({ model }: { model: SignUp }) {
  const state = useStore(model.state);
  const { busy, draft, linkOver, waitUntil } = state;
  const { failure } = useFailure(state);
  return (
    <MailWays
      busy={busy}
      failure={failure ?? (linkOver ? t("mail.over") : null)}
      proof={draft.proof}
      waitUntil={waitUntil}
      waiting={linkOver ? null : t("mail.waiting")}
      onCheck={() => void model.check()}
      onResend={() => model.resend()}
      onChange={() => model.change()}
    />
  );
}

export function Work({ model }: { model: SignUp }) {
  const progress = useStore(model.state, (state) => state.progress);
  const percent = Math.round(progress * 100);
  return (
    <>
      <div
        role="progressbar"
        aria-label={t("signUp.workProgress")}
        aria-valuenow={percent}
        aria-valuemin={0}
        aria-valuemax={100}
        className="h-2 overflow-hidden rounded-full bg-sunken"
      >
        <div
          className="h-full rounded-full bg-accent transition-[width]"
          style={{ width: `${Math.max(4, percent)}%` }}
        />
      </div>
      <Ways>
        <TextButton onClick={() => model.change()}>{t("cancel")}</TextButton>
      </Ways>
    </>
  );
}

/** A stage that only a page of the server knows: in a window of its own, which says when it is done. */
export function ServerPage({ model }: { model: SignUp }) {
  const { page, busy, failure } = useStore(model.state);
  const opened = useRef<Window | null>(null);

  useEffect(() => {
    function heard(event: MessageEvent): void {
      const ours = page !== null && event.origin === new URL(page).origin;
      if (ours && event.source === opened.current && event.data === "authDone") {
        opened.current?.close();
        void model.check();
      }
    }
    window.addEventListener("message", heard);
    return () => window.removeEventListener("message", heard);
  }, [model, page]);

  return (
    <div className="flex flex-col gap-4">
      {failure !== null ? (
        <Callout tone="bad" role="alert" icon={<CircleAlert />}>
          {failure}
        </Callout>
      ) : null}
      <Button
        variant="primary"
        size="large"
        onClick={() => {
          if (page !== null) opened.current = window.open(page, "_blank", "popup,width=520,height=720");
        }}
      >
        {t("signUp.pageOpen")} <ExternalLink className="size-4" aria-hidden />
      </Button>
      <Button size="large" busy={busy} onClick={() => void model.check()}>
        {t("signUp.pageCheck")}
      </Button>
      <Ways>
        <TextButton onClick={() => model.change()}>{t("signUp.back")}</TextButton>
      </Ways>
    </div>
  );
}

export function Awaiting({ model, onSignIn }: { model: SignUp; onSignIn(): void }) {
  return (
    <>
      <Button variant="primary" size="large" className="w-full" onClick={onSignIn}>
        {t("signUp.signIn")}
      </Button>
      <Ways>
        <TextButton onClick={() => void model.another()}>{t("signUp.another")}</TextButton>
      </Ways>
    </>
  );
}
