import { standardSchemaResolver } from "@hookform/resolvers/standard-schema";
import { CircleAlert } from "lucide-react";
import { useEffect, useState } from "react";
import { useForm, useWatch } from "react-hook-form";
import * as z from "zod/mini";
import { t } from "../../i18n";
import type { RegistrationInfo } from "../../sdk";
import { describe, errcodeOf } from "../../stores/failed";
import { Button, Callout, Skeleton } from "../../ui/core";
import { Form, PasswordField, TextField } from "../../ui/form";
import { Frame } from "./Frame";

const namePattern = /^[a-z0-9._=/+-]+$/;
const known = new Set(["m.login.dummy", "m.login.registration_token"]);

const schema = z.object({
  localpart: z
    .string()
    .check(
      z.trim(),
      z.minLength(1, { error: () => t("auth.nameMissing"), abort: true }),
      z.maxLength(200),
      z.regex(namePattern, { error: () => t("auth.nameBad") }),
    ),
  password: z.string().check(z.minLength(10, { error: () => t("auth.passwordShort") }), z.maxLength(512)),
  token: z.string().check(z.maxLength(64)),
});

export type SignUpValues = z.infer<typeof schema>;

interface Props {
  server: string;
  info(): Promise<RegistrationInfo>;
  isNameFree(name: string): Promise<boolean>;
  onSubmit(values: SignUpValues): Promise<void>;
  onSignIn(): void;
}

/** Says what the server lets one do before anything is asked for. */
export function SignUp(props: Props) {
  const [info, setInfo] = useState<RegistrationInfo | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const [round, setRound] = useState(0);
  const { info: ask } = props;

  useEffect(() => {
    let current = true;
    ask().then(
      (answer) => current && setInfo(answer),
      (error: unknown) => current && setFailure(describe(error)),
    );
    return () => {
      current = false;
    };
  }, [ask, round]);

  const strange = info?.stages.find((stage) => !known.has(stage));
  return (
    <Frame
      title={t("auth.create")}
      text={t("auth.createText", { server: props.server })}
      server={props.server}
      other={{ question: t("auth.haveAccount"), action: t("auth.signIn"), go: props.onSignIn }}
    >
      {failure !== null ? (
        <Callout
          tone="bad"
          role="alert"
          icon={<CircleAlert />}
          action={
            <Button
              size="small"
              onClick={() => {
                setFailure(null);
                setRound(round + 1);
              }}
            >
              {t("retry")}
            </Button>
          }
        >
          {failure}
        </Callout>
      ) : info === null ? (
        <div role="status" aria-label={t("auth.checking")} className="flex flex-col gap-4">
          <Skeleton className="h-11 w-full" />
          <Skeleton className="h-11 w-full" />
          <Skeleton className="h-11 w-full" />
        </div>
      ) : !info.open ? (
        <Callout role="status" icon={<CircleAlert />}>
          {t("auth.closed")}
        </Callout>
      ) : strange !== undefined ? (
        <Callout role="status" icon={<CircleAlert />}>
          {t("auth.unsupported", { stage: strange })}
        </Callout>
      ) : (
        <SignUpForm {...props} withToken={info.stages.includes("m.login.registration_token")} />
      )}
    </Frame>
  );
}

function SignUpForm({ isNameFree, onSubmit, withToken }: Props & { withToken: boolean }) {
  const { register, handleSubmit, setError, control, formState } = useForm<SignUpValues>({
    resolver: standardSchemaResolver(schema),
    defaultValues: { localpart: "", password: "", token: "" },
    mode: "onTouched",
  });
  const { errors, isSubmitting } = formState;
  const name = useWatch({ control, name: "localpart" });
  const free = useNameFree(name, isNameFree);

  async function submit(values: SignUpValues): Promise<void> {
    if (withToken && values.token === "") {
      setError("token", { message: t("auth.tokenMissing") });
      return;
    }
    try {
      await onSubmit(values);
    } catch (error) {
      const code = errcodeOf(error);
      if (code === "M_USER_IN_USE" || code === "M_EXCLUSIVE") setError("localpart", { message: t("auth.nameTaken") });
      else if (code === "M_INVALID_USERNAME") setError("localpart", { message: t("auth.nameBad") });
      else setError("root", { message: describe(error) });
    }
  }

  return (
    <Form
      action={t("auth.signUp")}
      busy={isSubmitting}
      failure={errors.root?.message}
      onSubmit={(event) => void handleSubmit(submit)(event)}
    >
      <TextField
        {...register("localpart")}
        label={t("auth.name")}
        prefix="@"
        hint={name === "" ? t("auth.nameHintEmpty") : t("auth.nameHint", { name })}
        error={errors.localpart?.message ?? (free === false ? t("auth.nameTaken") : undefined)}
        good={free === true ? t("auth.nameFree", { name }) : undefined}
        autoComplete="username"
        autoCapitalize="none"
        spellCheck={false}
        autoFocus
      />
      <PasswordField
        {...register("password")}
        label={t("auth.password")}
        hint={t("auth.passwordHint")}
        error={errors.password?.message}
        autoComplete="new-password"
      />
      {withToken ? (
        <TextField
          {...register("token")}
          label={t("auth.token")}
          hint={t("auth.tokenHint")}
          error={errors.token?.message}
          autoComplete="off"
          spellCheck={false}
        />
      ) : null}
    </Form>
  );
}

/** Asks the server once typing has paused; null while nothing is known. */
function useNameFree(name: string, ask: Props["isNameFree"]): boolean | null {
  const [answer, setAnswer] = useState<{ name: string; free: boolean } | null>(null);
  useEffect(() => {
    if (!namePattern.test(name)) return;
    let current = true;
    const timer = setTimeout(() => {
      ask(name).then(
        (free) => current && setAnswer({ name, free }),
        () => current && setAnswer(null), // registering will say what is wrong
      );
    }, 350);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [name, ask]);
  return answer !== null && answer.name === name ? answer.free : null;
}
