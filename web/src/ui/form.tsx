import { clsx } from "clsx";
import { CircleAlert, Eye, EyeOff } from "lucide-react";
import {
  type FormEvent,
  type InputHTMLAttributes,
  type ReactNode,
  type Ref,
  useEffect,
  useId,
  useRef,
  useState,
} from "react";
import { t } from "../i18n";
import { Button, Callout } from "./core";

interface FormProps {
  /** What the button at the end does. */
  action: string;
  busy: boolean;
  /** Nothing can be sent yet. */
  disabled?: boolean;
  /** Why it did not work. */
  failure: string | null | undefined;
  onSubmit(event: FormEvent): void;
  children: ReactNode;
}

/**
 * Fields, one button, and between them what went wrong. The fields say themselves what is wrong in them; the first of those is where one goes
 * on, unless one has gone on meanwhile.
 */
export function Form({ action, busy, disabled, failure, onSubmit, children }: FormProps) {
  const form = useRef<HTMLFormElement>(null);
  const sent = useRef(false);
  const goneOn = (): void => {
    sent.current = false;
  };
  useEffect(() => {
    if (!sent.current || busy) return;
    const wrong = form.current?.querySelector<HTMLElement>("[aria-invalid=true]");
    if (wrong === null || wrong === undefined) return;
    sent.current = false;
    wrong.focus();
  });
  return (
    <form
      ref={form}
      noValidate
      className="flex flex-col gap-4"
      onKeyDownCapture={goneOn}
      onPointerDownCapture={goneOn}
      onSubmit={(event) => {
        event.preventDefault();
        if (busy || disabled === true) return;
        sent.current = true;
        onSubmit(event);
      }}
    >
      {children}
      {failure !== null && failure !== undefined ? (
        <Callout tone="bad" role="alert" icon={<CircleAlert />}>
          {failure}
        </Callout>
      ) : null}
      <Button type="submit" variant="primary" size="large" busy={busy} aria-disabled={disabled} className="mt-1">
        {action}
      </Button>
    </form>
  );
}

interface FieldProps extends InputHTMLAttributes<HTMLInputElement> {
  label: string;
  hint?: ReactNode;
  error?: string | undefined;
  good?: string | undefined;
  prefix?: string;
  suffix?: ReactNode;
  ref?: Ref<HTMLInputElement>;
}

/** A labelled input with its hint; an error takes the place of the hint and is read out. */
export function TextField({ label, hint, error, good, prefix, suffix, className, ...rest }: FieldProps) {
  const id = useId();
  const note = error ?? good ?? hint;
  return (
    <div className={clsx("flex flex-col gap-1.5", className)}>
      <label htmlFor={id} className="text-[13px] font-medium text-ink">
        {label}
      </label>
      <div
        className={clsx(
          "flex h-11 items-center rounded-lg border bg-canvas transition-shadow focus-within:ring-2 focus-within:ring-accent/40",
          error !== undefined ? "border-bad" : "border-line-strong focus-within:border-accent-ink",
        )}
      >
        {prefix !== undefined ? <span className="pl-3 text-[15px] text-ink-3 select-none">{prefix}</span> : null}
        <input
          {...rest}
          id={id}
          aria-invalid={error !== undefined}
          aria-describedby={note !== undefined ? `${id}-note` : undefined}
          className={clsx(
            "h-full min-w-0 flex-1 rounded-lg bg-transparent px-3 text-[15px] outline-none placeholder:text-ink-3",
            prefix !== undefined && "pl-0.5",
          )}
        />
        {suffix}
      </div>
      {note !== undefined ? (
        <p
          id={`${id}-note`}
          role={error !== undefined ? "alert" : undefined}
          className={clsx(
            "text-[13px] leading-snug wrap-anywhere",
            error !== undefined ? "text-bad" : good !== undefined ? "text-good" : "text-ink-2",
          )}
        >
          {note}
        </p>
      ) : null}
    </div>
  );
}

/** An address, which no keyboard should correct. */
export function UserIdField(props: Omit<FieldProps, "label" | "type"> & { label?: string }) {
  return (
    <TextField
      label={t("create.userId")}
      hint={t("create.userIdHint")}
      {...props}
      autoCapitalize="none"
      autoComplete="off"
      spellCheck={false}
      maxLength={300}
    />
  );
}

/** One box with what it stands for, which is pressed as well. */
export function Checkbox({
  label,
  hint,
  checked,
  onChange,
  disabled,
}: {
  label: ReactNode;
  hint?: ReactNode;
  checked: boolean;
  onChange(checked: boolean): void;
  disabled?: boolean;
}) {
  const id = useId();
  return (
    <div>
      <label className="flex min-h-11 cursor-pointer items-center gap-2.5 text-sm">
        <input
          type="checkbox"
          checked={checked}
          disabled={disabled}
          onChange={(event) => onChange(event.target.checked)}
          aria-describedby={hint !== undefined ? id : undefined}
          className="size-4.5 shrink-0 accent-accent"
        />
        <span className="min-w-0 wrap-anywhere">{label}</span>
      </label>
      {hint !== undefined ? (
        <p id={id} className="ml-7 text-[13px] leading-snug text-ink-2">
          {hint}
        </p>
      ) : null}
    </div>
  );
}

/** A code of digits, as authenticator apps show it: a keypad on phones, filled in by those that can, pasted in any form. */
export function CodeField({
  digits = 6,
  onCode,
  ...props
}: Omit<FieldProps, "type" | "onChange"> & { digits?: number; onCode(code: string): void }) {
  return (
    <TextField
      {...props}
      onChange={(event) => onCode(event.target.value.replace(/\D/g, "").slice(0, digits))}
      inputMode="numeric"
      autoComplete="one-time-code"
      autoCapitalize="none"
      spellCheck={false}
      className="[&_input]:font-mono [&_input]:text-lg [&_input]:tracking-[0.3em]"
    />
  );
}

export function PasswordField(props: Omit<FieldProps, "type" | "suffix">) {
  const [shown, show] = useState(false);
  return (
    <TextField
      {...props}
      type={shown ? "text" : "password"}
      suffix={
        <button
          type="button"
          aria-label={shown ? t("form.hidePassword") : t("form.showPassword")}
          aria-pressed={shown}
          onClick={() => show(!shown)}
          className="touch mr-1 flex size-9 items-center justify-center rounded-md text-ink-3 hover:text-ink [&_svg]:size-[18px]"
        >
          {shown ? <EyeOff /> : <Eye />}
        </button>
      }
    />
  );
}
