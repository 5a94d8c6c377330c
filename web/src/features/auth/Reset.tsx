import { CircleAlert, KeyRound } from "lucide-react";
import { useEffect, useState } from "react";
import { useStore } from "zustand";
import { t } from "../../i18n";
import type { Reset as Model } from "../../stores/reset";
import { Button, Callout } from "../../ui/core";
import { Checkbox, Form, PasswordField, TextField } from "../../ui/form";
import { Frame } from "./Frame";
import { MailWays } from "./MailWays";
import { useFailure } from "./useWaiting";

const shortest = 10;

interface Props {
  server: string;
  model: Model;
  onSignIn(): void;
}

/** A new password for whoever has lost the old one. */
export function Reset({ server, model, onSignIn }: Props) {
  const { step, proof, everywhere } = useStore(model.state);
  useEffect(() => () => model.stop(), [model]);
  const other = { question: t("reset.remembered"), action: t("reset.signIn"), go: onSignIn };
  switch (step) {
    case "address":
      return (
        <Frame title={t("reset.title")} text={t("reset.text", { server })} server={server} step={step} other={other}>
          <Address model={model} />
        </Frame>
      );
    case "password":
      return (
        <Frame
          title={t("reset.sentTitle")}
          text={t("reset.sentText", { address: proof?.address ?? "" })}
          server={server}
          step={step}
          other={other}
        >
          <NewPassword model={model} />
        </Frame>
      );
    case "done":
      return (
        <Frame
          title={t("reset.doneTitle")}
          text={t(everywhere ? "reset.doneEverywhere" : "reset.doneHere")}
          server={server}
          step={step}
        >
          <div className="flex flex-col gap-5">
            <Callout role="status" icon={<KeyRound />}>
              {t("reset.doneKey")}
            </Callout>
            <Button variant="primary" size="large" onClick={onSignIn}>
              {t("reset.signIn")}
            </Button>
          </div>
        </Frame>
      );
  }
}

function Address({ model }: { model: Model }) {
  const state = useStore(model.state);
  const { busy, wrong, proof } = state;
  const { failure, waiting } = useFailure(state);
  const [address, setAddress] = useState(proof?.address ?? "");
  const [missing, setMissing] = useState(false);
  return (
    <Form
      action={t("reset.action")}
      busy={busy}
      disabled={waiting}
      failure={failure}
      onSubmit={() => {
        setMissing(address.trim() === "");
        if (address.trim() !== "") void model.request(address);
      }}
    >
      <TextField
        label={t("reset.email")}
        type="email"
        name="email"
        value={address}
        onChange={(event) => setAddress(event.target.value)}
        error={missing && address.trim() === "" ? t("reset.emailMissing") : (wrong ?? undefined)}
        autoComplete="email"
        autoCapitalize="none"
        spellCheck={false}
        maxLength={254}
        autoFocus
      />
    </Form>
  );
}

function NewPassword({ model }: { model: Model }) {
  const state = useStore(model.state);
  const { busy, wrong, waitUntil, waiting, proof } = state;
  const { failure, waiting: later } = useFailure(state);
  const [password, setPassword] = useState("");
  const [everywhere, setEverywhere] = useState(true);
  const [short, setShort] = useState(false);
  const tooShort = [...password].length < shortest;
  return (
    <>
      <Form
        action={t("reset.finish")}
        busy={busy}
        disabled={later || waiting}
        failure={null}
        onSubmit={() => {
          setShort(tooShort);
          if (!tooShort) void model.finish(password, everywhere);
        }}
      >
        <PasswordField
          label={t("reset.password")}
          name="password"
          value={password}
          onChange={(event) => setPassword(event.target.value)}
          hint={t("signUp.passwordHint")}
          error={short && tooShort ? t("signUp.passwordShort") : (wrong ?? undefined)}
          autoComplete="new-password"
          maxLength={512}
          disabled={waiting}
        />
        <Checkbox
          label={t("reset.everywhere")}
          hint={t("reset.everywhereHint")}
          checked={everywhere}
          onChange={setEverywhere}
          disabled={waiting}
        />
        {waiting ? (
          <Callout role="status" icon={<CircleAlert />}>
            {t("reset.waiting")}
          </Callout>
        ) : null}
      </Form>
      <div className="mt-5">
        <MailWays
          busy={busy}
          failure={failure}
          proof={proof}
          waitUntil={waitUntil}
          waiting={null}
          onResend={() => model.resend()}
          onChange={() => model.change()}
        />
      </div>
    </>
  );
}
