import { CircleAlert, MailOpen } from "lucide-react";
import { useEffect, useState } from "react";
import { useStore } from "zustand";
import { t } from "../../i18n";
import type { SignUp as Model, SignUpState, SignUpValues } from "../../stores/signUp";
import { Button, Callout, Skeleton } from "../../ui/core";
import { Form, PasswordField, TextField } from "../../ui/form";
import { Frame } from "./Frame";
import { Awaiting, Mail, ServerPage, Terms, Work } from "./SignUpSteps";
import { useFailure } from "./useWaiting";

const namePattern = /^[a-z0-9._=/+-]+$/;
const shortest = 10;

interface Props {
  server: string;
  model: Model;
  onSignIn(): void;
}

/** Says what the server lets one do before anything is asked for, and leads through what it wants, step by step. */
export function SignUp({ server, model, onSignIn }: Props) {
  const state = useStore(model.state);
  useEffect(() => {
    void model.open();
    return () => model.stop();
  }, [model]);
  const other = { question: t("signUp.haveAccount"), action: t("signUp.signIn"), go: onSignIn };
  const frame = { server, step: state.step, other };

  switch (state.step) {
    case "terms":
      return (
        <Frame {...frame} title={t("signUp.termsTitle")} text={t("signUp.termsText")}>
          <Terms model={model} />
        </Frame>
      );
    case "mail":
      return (
        <Frame {...frame} title={t("mail.title")} text={t("mail.text", { address: state.draft.email })}>
          <Mail model={model} />
        </Frame>
      );
    case "work":
      return (
        <Frame {...frame} title={t("signUp.workTitle")} text={t("signUp.workText")}>
          <Work model={model} />
        </Frame>
      );
    case "page":
      return (
        <Frame {...frame} title={t("signUp.pageTitle")} text={t("signUp.pageText")}>
          <ServerPage model={model} />
        </Frame>
      );
    case "awaiting":
      return (
        <Frame
          server={server}
          step={state.step}
          title={t("signUp.awaitingTitle")}
          text={t("signUp.awaitingText", { server, name: state.draft.name })}
        >
          <Awaiting model={model} onSignIn={onSignIn} />
        </Frame>
      );
  }
  const invited = state.invited === true && state.step === "form";
  return (
    <Frame
      {...frame}
      title={t(invited ? "signUp.invitedTitle" : "signUp.title")}
      text={t(invited ? "signUp.invitedText" : "signUp.text", { server })}
    >
      {state.step === "form" ? (
        <Fields key={state.resumed ? "resumed" : "new"} model={model} state={state} />
      ) : state.step === "closed" ? (
        <Callout role="status" icon={<CircleAlert />}>
          {t("signUp.closed")}
        </Callout>
      ) : state.failure !== null ? (
        <Callout
          tone="bad"
          role="alert"
          icon={<CircleAlert />}
          action={
            <Button size="small" onClick={() => void model.open()}>
              {t("retry")}
            </Button>
          }
        >
          {state.failure}
        </Callout>
      ) : (
        <div role="status" aria-label={t("signUp.checking")} className="flex flex-col gap-4">
          <Skeleton className="h-11 w-full" />
          <Skeleton className="h-11 w-full" />
          <Skeleton className="h-11 w-full" />
        </div>
      )}
    </Frame>
  );
}

type Wrong = Partial<Record<keyof SignUpValues, string>>;

/** What is wrong with what was entered, as far as it can be seen here. */
function lookAt(values: SignUpValues, asks: SignUpState["asks"]): Wrong {
  const wrong: Wrong = {};
  if (values.name === "") wrong.name = t("signUp.nameMissing");
  else if (!namePattern.test(values.name)) wrong.name = t("signUp.nameBad");
  if ([...values.password].length < shortest) wrong.password = t("signUp.passwordShort");
  if (asks.token && values.token === "") wrong.token = t("signUp.tokenMissing");
  if (asks.email === "required" && values.email === "") wrong.email = t("signUp.emailMissing");
  else if (values.email !== "" && !/^[^\s@]+@[^\s@]+$/.test(values.email)) wrong.email = t("signUp.emailBad");
  return wrong;
}

function trimmed(values: SignUpValues): SignUpValues {
  const { name, token, email, reason, password } = values;
  return { name: name.trim(), token: token.trim(), email: email.trim(), reason: reason.trim(), password };
}

function Fields({ model, state }: { model: Model; state: SignUpState }) {
  const { asks, draft, busy, invited, resumed } = state;
  const { failure, waiting } = useFailure(state);
  const [values, setValues] = useState<SignUpValues>({ ...draft, password: model.password() });
  const [own, setOwn] = useState<Wrong>({});
  // What the server has said of a field stands until the field is changed.
  const [changed, setChanged] = useState<ReadonlySet<string>>(new Set());
  const free = useNameFree(values.name, model.isNameFree.bind(model));
  const wrongOf = (field: keyof SignUpValues): string | undefined =>
    own[field] ?? (field === "reason" || changed.has(field) ? undefined : state.wrong[field]);

  // An invitation can come by a link after the page is there.
  const [token, setToken] = useState(draft.token);
  if (token !== draft.token) {
    setToken(draft.token);
    setValues({ ...values, token: draft.token });
  }

  function field(name: keyof SignUpValues): {
    value: string;
    onChange(event: { target: { value: string } }): void;
    error: string | undefined;
  } {
    return {
      value: values[name],
      error: wrongOf(name),
      onChange: (event) => {
        setValues({ ...values, [name]: event.target.value });
        setOwn({ ...own, [name]: undefined });
        setChanged(new Set(changed).add(name));
      },
    };
  }

  /** Says on leaving a field what is wrong in it, not before. */
  function left(name: keyof SignUpValues): void {
    if (values[name] !== "") setOwn({ ...own, [name]: lookAt(trimmed(values), asks)[name] });
  }

  function submit(): void {
    const entered = trimmed(values);
    const wrong = lookAt(entered, asks);
    setOwn(wrong);
    if (Object.keys(wrong).length > 0) return;
    setChanged(new Set());
    void model.submit(entered);
  }

  return (
    <Form action={t("signUp.action")} busy={busy} disabled={waiting} failure={failure} onSubmit={submit}>
      {resumed ? (
        <Callout role="status" icon={<CircleAlert />}>
          {t("signUp.resumed")}
        </Callout>
      ) : null}
      {invited === false ? (
        <Callout tone="warn" role="alert" icon={<MailOpen />}>
          {t("signUp.invitedBad")}
        </Callout>
      ) : null}
      <TextField
        label={t("signUp.name")}
        prefix="@"
        {...field("name")}
        name="username"
        onBlur={() => left("name")}
        hint={values.name === "" ? t("signUp.nameHintEmpty") : t("signUp.nameHint", { name: values.name })}
        error={wrongOf("name") ?? (free === false ? t("signUp.nameTaken") : undefined)}
        good={free === true ? t("signUp.nameFree", { name: values.name }) : undefined}
        autoComplete="username"
        autoCapitalize="none"
        spellCheck={false}
        maxLength={200}
        autoFocus={!resumed}
      />
      <PasswordField
        label={t("signUp.password")}
        {...field("password")}
        name="password"
        onBlur={() => left("password")}
        hint={t("signUp.passwordHint")}
        autoComplete="new-password"
        maxLength={512}
        autoFocus={resumed}
      />
      {asks.email !== "no" ? (
        <TextField
          label={t(asks.email === "required" ? "signUp.email" : "signUp.emailOptional")}
          {...field("email")}
          name="email"
          type="email"
          onBlur={() => left("email")}
          hint={t(asks.email === "required" ? "signUp.emailRequiredHint" : "signUp.emailHint")}
          autoComplete="email"
          autoCapitalize="none"
          spellCheck={false}
          maxLength={254}
        />
      ) : null}
      {asks.token ? (
        <TextField
          label={t("signUp.token")}
          {...field("token")}
          hint={t("signUp.tokenHint")}
          autoComplete="off"
          autoCapitalize="none"
          spellCheck={false}
          maxLength={64}
        />
      ) : null}
      {asks.reason ? (
        <TextField label={t("signUp.reason")} {...field("reason")} hint={t("signUp.reasonHint")} maxLength={300} />
      ) : null}
    </Form>
  );
}

/** Asks the server once typing has paused; null while nothing is known. */
function useNameFree(name: string, ask: Model["isNameFree"]): boolean | null {
  const [answer, setAnswer] = useState<{ name: string; free: boolean } | null>(null);
  const [asking] = useState(() => ask);
  useEffect(() => {
    if (!namePattern.test(name)) return;
    let current = true;
    const timer = setTimeout(() => {
      asking(name).then(
        (free) => current && setAnswer({ name, free }),
        () => current && setAnswer(null), // registering will say what is wrong
      );
    }, 500);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [name, asking]);
  return answer !== null && answer.name === name ? answer.free : null;
}
