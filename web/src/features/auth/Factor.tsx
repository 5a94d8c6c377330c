import { CircleAlert, Fingerprint } from "lucide-react";
import { useState } from "react";
import { useStore } from "zustand";
import { t } from "../../i18n";
import type { FactorType } from "../../sdk";
import type { SignIn } from "../../stores/signIn";
import { Button, Callout } from "../../ui/core";
import { CodeField, Form, TextField } from "../../ui/form";
import { Frame, TextButton, Ways } from "./Frame";
import { useFailure } from "./useWaiting";

const texts = { totp: "factor.totpText", recovery: "factor.recoveryText", passkey: "factor.passkeyText" } as const;
const uses = { totp: "factor.useTotp", recovery: "factor.useRecovery", passkey: "factor.usePasskey" } as const;

/** The second step of signing in: any one of the factors that the account has. */
export function FactorPage({ server, model }: { server: string; model: SignIn }) {
  const { needs, chosen, busy } = useStore(model.state);
  if (needs === null || chosen === null) return null;
  return (
    <Frame title={t("factor.title")} text={t(texts[chosen])} server={server}>
      {chosen === "passkey" ? <Passkey model={model} /> : <Code key={chosen} kind={chosen} model={model} />}
      <Ways>
        {needs
          .filter((factor) => factor !== chosen)
          .map((factor) => (
            <TextButton key={factor} disabled={busy} onClick={() => model.choose(factor)}>
              {t(uses[factor])}
            </TextButton>
          ))}
        <TextButton onClick={() => model.restart()}>{t("factor.back")}</TextButton>
      </Ways>
    </Frame>
  );
}

function Code({ kind, model }: { kind: Exclude<FactorType, "passkey">; model: SignIn }) {
  const state = useStore(model.state);
  const { busy } = state;
  const { failure, waiting } = useFailure(state);
  const [code, setCode] = useState("");
  const [missing, setMissing] = useState<string>();

  function submit(): void {
    const short = kind === "totp" ? code.length !== 6 : code.trim() === "";
    setMissing(short ? t(kind === "totp" ? "factor.totpMissing" : "factor.recoveryMissing") : undefined);
    // What was refused never works, what was not looked at need not be typed again.
    if (!short) void model.factor(code).then((looked) => looked && setCode(""));
  }

  return (
    <Form action={t("factor.action")} busy={busy} disabled={waiting} failure={failure} onSubmit={submit}>
      {kind === "totp" ? (
        <CodeField
          label={t("factor.totp")}
          hint={t("factor.totpHint")}
          value={code}
          onCode={setCode}
          error={missing}
          autoFocus
        />
      ) : (
        <TextField
          label={t("factor.recovery")}
          value={code}
          onChange={(event) => setCode(event.target.value)}
          error={missing}
          autoComplete="off"
          autoCapitalize="none"
          spellCheck={false}
          maxLength={64}
          className="[&_input]:font-mono"
          autoFocus
        />
      )}
    </Form>
  );
}

function Passkey({ model }: { model: SignIn }) {
  const state = useStore(model.state);
  const { busy } = state;
  const { failure, waiting } = useFailure(state);
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
        busy={busy}
        disabled={waiting}
        onClick={() => void model.factor()}
        autoFocus
      >
        <Fingerprint className="size-4.5" aria-hidden />
        {t("factor.passkeyAction")}
      </Button>
    </div>
  );
}
