import { CircleAlert, CircleX, Clock } from "lucide-react";
import type { ReactNode } from "react";
import { useStore } from "zustand";
import { t } from "../../i18n";
import { sayWait } from "../../stores/failed";
import type { Linking, LinkingState } from "../../stores/linking";
import type { SignIn } from "../../stores/signIn";
import { Button, Callout, Dots } from "../../ui/core";
import { FactorPage } from "./Factor";
import { Frame, TextButton, Ways } from "./Frame";
import { QrCode } from "./QrCode";
import { useWaiting } from "./useWaiting";

interface Props {
  server: string;
  linking: Linking;
  /** What goes on once the other device has let this one in. */
  model: SignIn;
  onSignIn(): void;
}

/** Signing in by a device where one is signed in: this one shows a code, that one lets it in. */
export function ByDevice({ server, linking, model, onSignIn }: Props) {
  const { at, code, failure } = useStore(linking.state);
  const entering = useStore(model.state);
  if (entering.needs !== null) return <FactorPage server={server} model={model} />;
  const shown = at === "waiting" && code !== null;
  const again = (
    <Button variant="primary" size="large" onClick={() => void linking.begin()}>
      {t("byDevice.again")}
    </Button>
  );
  return (
    <Frame title={t("byDevice.title")} text={shown ? t("byDevice.text") : undefined} server={server} step={at}>
      <div className="flex flex-col gap-4">
        {shown ? <Code code={code} failure={failure} /> : null}
        {at === "starting" ? <Busy>{t("byDevice.starting")}</Busy> : null}
        {at === "allowed" && entering.failure === null ? <Busy>{t("byDevice.entering")}</Busy> : null}
        {at === "allowed" && entering.failure !== null ? <Ended bad text={entering.failure} /> : null}
        {at === "refused" ? <Ended bad text={t("byDevice.refused")} /> : null}
        {at === "over" ? <Ended text={t("byDevice.over")} /> : null}
        {at === "failed" ? <Ended bad text={failure ?? ""} /> : null}
        {at === "waiting" || at === "starting" || (at === "allowed" && entering.failure === null) ? null : again}
      </div>
      <Ways>
        <TextButton onClick={onSignIn}>{t("byDevice.back")}</TextButton>
      </Ways>
    </Frame>
  );
}

function Busy({ children }: { children: ReactNode }) {
  return (
    <p role="status" className="flex items-center gap-2.5 text-sm text-ink-2">
      <Dots /> {children}
    </p>
  );
}

function Ended({ text, bad = false }: { text: string; bad?: boolean }) {
  return (
    <Callout tone={bad ? "bad" : "warn"} role="alert" icon={bad ? <CircleX /> : <Clock />}>
      {text}
    </Callout>
  );
}

function Code({ code, failure }: { code: NonNullable<LinkingState["code"]>; failure: string | null }) {
  const left = useWaiting(code.expires);
  return (
    <>
      <div className="flex flex-col items-center gap-4">
        <QrCode text={code.url} label={t("byDevice.qr")} />
        <p className="text-center">
          <span className="block text-[13px] text-ink-2">{t("byDevice.code")}</span>
          <span
            data-testid="user-code"
            className="mt-0.5 block font-mono text-3xl font-semibold tracking-wider select-all"
          >
            {code.typed}
          </span>
        </p>
      </div>
      <p className="text-sm leading-relaxed text-ink-2">{t("byDevice.where")}</p>
      <p className="text-[13px] text-ink-2">{t("byDevice.left", { time: sayWait(left) })}</p>
      {failure !== null ? (
        <Callout tone="warn" role="status" icon={<CircleAlert />}>
          {failure}
        </Callout>
      ) : null}
    </>
  );
}
