import { standardSchemaResolver } from "@hookform/resolvers/standard-schema";
import { CircleAlert } from "lucide-react";
import { useForm } from "react-hook-form";
import * as z from "zod/mini";
import { t } from "../../i18n";
import { describe, errcodeOf } from "../../stores/failed";
import { Callout } from "../../ui/core";
import { Form, PasswordField, TextField } from "../../ui/form";
import { Frame } from "./Frame";

const schema = z.object({
  user: z.string().check(z.trim(), z.minLength(1, { error: () => t("auth.userMissing") }), z.maxLength(255)),
  password: z.string().check(z.minLength(1, { error: () => t("auth.passwordMissing") }), z.maxLength(512)),
});

type Values = z.infer<typeof schema>;

interface Props {
  server: string;
  /** Shown above the form, for example after the server ended the session. */
  note?: string | undefined;
  onSubmit(values: Values): Promise<void>;
  onSignUp(): void;
}

export function SignIn({ server, note, onSubmit, onSignUp }: Props) {
  const { register, handleSubmit, setError, formState } = useForm<Values>({
    resolver: standardSchemaResolver(schema),
    defaultValues: { user: "", password: "" },
  });
  const { errors, isSubmitting } = formState;

  async function submit(values: Values): Promise<void> {
    try {
      await onSubmit(values);
    } catch (error) {
      setError("root", { message: errcodeOf(error) === "M_FORBIDDEN" ? t("auth.wrong") : describe(error) });
    }
  }

  return (
    <Frame
      title={t("auth.welcome")}
      text={t("auth.welcomeText", { server })}
      server={server}
      other={{ question: t("auth.noAccount"), action: t("auth.signUp"), go: onSignUp }}
    >
      <Form
        action={t("auth.signIn")}
        busy={isSubmitting}
        failure={errors.root?.message}
        onSubmit={(event) => void handleSubmit(submit)(event)}
      >
        {note !== undefined ? (
          <Callout role="status" icon={<CircleAlert />}>
            {note}
          </Callout>
        ) : null}
        <TextField
          {...register("user")}
          label={t("auth.user")}
          error={errors.user?.message}
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          autoFocus
        />
        <PasswordField
          {...register("password")}
          label={t("auth.password")}
          error={errors.password?.message}
          autoComplete="current-password"
        />
      </Form>
    </Frame>
  );
}
