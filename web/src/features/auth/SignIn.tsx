import { CircleAlert, Fingerprint, KeyRound, MonitorSmartphone } from "lucide-react";
import { useEffect, useId, useState } from "react";
import { useStore } from "zustand";
import { t } from "../../i18n";
import { hasPasskeys, type Provider } from "../../sdk";
import type { SignIn as Model } from "../../stores/signIn";
import { leaveFor } from "../../stores/ssoReturn";
import { Button, Callout } from "../../ui/core";
import { Form, PasswordField, TextField } from "../../ui/form";
import { FactorPage } from "./Factor";
import { Frame, TextButton, Ways } from "./Frame";
import { useFailure } from "./useWaiting";

/** How often one asks what the server offers, as long as it does not answer. */
const lookMs = 5000;

interface Props {
  server: string;
  model: Model;
  /** How the server has ended the session that was there. */
  ended: "signed_out" | "soft" | null;
  /** Somebody has come with the code of a device that waits to be let in. */
  toLetIn: boolean;
  onSignUp(): void;
  onForgot(): void;
  /** By a device where they are signed in. */
  onDevice(): void;
  /** Gives up the session that is to be signed in to again. */
  onSignOut(): void;
}

export function SignIn(props: Props) {
  const { model } = props;
  const needs = useStore(model.state, (state) => state.needs);
  const known = useStore(model.state, (state) => state.ways !== null);
  // Whoever can only sign in by a way that the server has not told yet waits for that.
  useEffect(() => {
    if (known) return undefined;
    void model.look();
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void model.look();
    }, lookMs);
    return () => clearInterval(timer);
  }, [model, known]);
  return needs === null ? <First {...props} /> : <FactorPage server={props.server} model={model} />;
}

function First({ server, model, ended, toLetIn, onSignUp, onForgot, onDevice, onSignOut }: Props) {
  const state = useStore(model.state);
  const { ways, busy } = state;
  const { failure, waiting } = useFailure(state);
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const [wrong, setWrong] = useState<{ user?: string; password?: string }>({});
  const again = model.userId;

  function submit(): void {
    const missing = {
      ...(again === null && user.trim() === "" ? { user: t("signIn.userMissing") } : {}),
      ...(password === "" ? { password: t("signIn.passwordMissing") } : {}),
    };
    setWrong(missing);
    if (Object.keys(missing).length === 0) void model.password(user, password);
  }

  return (
    <Frame
      title={again === null ? t("signIn.title") : t("signIn.softTitle")}
      text={again === null ? t("signIn.text", { server }) : t("signIn.softAs", { user: again })}
      server={server}
      other={
        again === null
          ? { question: t("signIn.noAccount"), action: t("signIn.signUp"), go: onSignUp }
          : { question: t("signIn.other"), action: t("signIn.otherAction"), go: onSignOut }
      }
    >
      {ended !== null ? (
        <div className="mb-4">
          <Callout role="status" icon={<CircleAlert />}>
            {t(ended === "soft" ? "signIn.soft" : "boot.endedText")}
          </Callout>
        </div>
      ) : null}
      {toLetIn ? (
        <div className="mb-4">
          <Callout role="status" icon={<MonitorSmartphone />}>
            {t("signIn.toLetIn")}
          </Callout>
        </div>
      ) : null}
      <Form action={t("signIn.action")} busy={busy} disabled={waiting} failure={failure} onSubmit={submit}>
        {again === null ? (
          <TextField
            label={t("signIn.user")}
            name="username"
            value={user}
            onChange={(event) => setUser(event.target.value)}
            error={wrong.user}
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            maxLength={320}
            autoFocus
          />
        ) : (
          // For programs that keep passwords.
          <input type="text" name="username" autoComplete="username" value={again} readOnly hidden />
        )}
        <PasswordField
          label={t("signIn.password")}
          name="password"
          value={password}
          onChange={(event) => setPassword(event.target.value)}
          error={wrong.password}
          autoComplete="current-password"
          maxLength={512}
          autoFocus={again !== null}
        />
      </Form>
      <Ways>
        <TextButton onClick={onForgot}>{t("signIn.forgot")}</TextButton>
      </Ways>
      <OtherWays
        passkey={ways?.steps === true && hasPasskeys()}
        providers={ways?.providers ?? []}
        device={ways?.steps === true}
        busy={busy}
        onDevice={onDevice}
        onPasskey={() => void model.passkey()}
        onProvider={(provider) => location.assign(model.providerPage(provider, leaveFor()))}
      />
    </Frame>
  );
}

interface OtherProps {
  passkey: boolean;
  providers: Provider[];
  device: boolean;
  busy: boolean;
  onPasskey(): void;
  onDevice(): void;
  onProvider(provider: Provider): void;
}

function OtherWays({ passkey, providers, device, busy, onPasskey, onDevice, onProvider }: OtherProps) {
  const id = useId();
  if (!passkey && !device && providers.length === 0) return null;
  return (
    <div role="group" aria-labelledby={id} className="mt-5 flex flex-col gap-2.5">
      <div id={id} className="mb-1 flex items-center gap-3 text-[13px] text-ink-2">
        <span className="h-px flex-1 bg-line" />
        {t("signIn.or")}
        <span className="h-px flex-1 bg-line" />
      </div>
      {providers.map((provider) => (
        <Button
          key={provider.id ?? ""}
          size="large"
          disabled={busy}
          onClick={() => onProvider(provider)}
          className="h-auto! min-h-11 py-2 leading-snug whitespace-normal!"
        >
          <KeyRound className="size-4.5 shrink-0" aria-hidden />
          <span className="min-w-0 wrap-anywhere">
            {provider.name === null ? t("signIn.providerUnnamed") : t("signIn.provider", { name: provider.name })}
          </span>
        </Button>
      ))}
      {passkey ? (
        <Button
          size="large"
          disabled={busy}
          onClick={onPasskey}
          className="h-auto! min-h-11 py-2 leading-snug whitespace-normal!"
        >
          <Fingerprint className="size-4.5 shrink-0" aria-hidden />
          {t("signIn.passkey")}
        </Button>
      ) : null}
      {device ? (
        <Button
          size="large"
          disabled={busy}
          onClick={onDevice}
          className="h-auto! min-h-11 py-2 leading-snug whitespace-normal!"
        >
          <MonitorSmartphone className="size-4.5 shrink-0" aria-hidden />
          {t("signIn.device")}
        </Button>
      ) : null}
    </div>
  );
}
