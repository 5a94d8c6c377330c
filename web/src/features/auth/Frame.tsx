import { ShieldCheck } from "lucide-react";
import { type ReactNode, useEffect, useRef } from "react";
import { t } from "../../i18n";
import { Mark } from "../../ui/core";
import { LanguageLine } from "../../ui/language";
import { useTitle } from "../../ui/title";

/** The card of a page in front of a session, in the middle of an otherwise empty page. */
export function Frame({
  title,
  text,
  server,
  step,
  sudden = false,
  other,
  children,
}: {
  title: string;
  text?: ReactNode;
  server: string;
  /** Where a page has several steps: which one this is. Its heading takes the focus, so that it is read out. */
  step?: string;
  /** It comes by itself: its heading takes the focus at once. */
  sudden?: boolean;
  /** The way to another page. */
  other?: { question: string; action: string; go(): void } | undefined;
  children: ReactNode;
}) {
  useTitle(title);
  const heading = useRef<HTMLHeadingElement>(null);
  const first = useRef(!sudden);
  useEffect(() => {
    if (first.current) first.current = false;
    else if (!heading.current?.closest("section")?.contains(document.activeElement)) heading.current?.focus();
  }, [step]);

  return (
    <div className="h-full overflow-y-auto bg-side">
      <main className="mx-auto flex min-h-full w-full max-w-[27rem] flex-col justify-center px-4 py-10">
        <div className="mb-7 flex items-center gap-2.5 self-center">
          <Mark size={30} />
          <span className="text-lg font-semibold tracking-tight">Conclave</span>
        </div>
        <section className="rounded-2xl border border-line bg-raised p-6 shadow-card sm:p-8">
          <h1 ref={heading} tabIndex={-1} className="text-xl font-semibold tracking-tight text-balance outline-none">
            {title}
          </h1>
          {text !== undefined ? (
            <p className="mt-1.5 text-sm leading-relaxed wrap-anywhere text-ink-2">{text}</p>
          ) : null}
          <div className="mt-6">{children}</div>
          {other !== undefined ? (
            <p className="mt-5 text-center text-sm text-ink-2">
              {other.question} <TextButton onClick={other.go}>{other.action}</TextButton>
            </p>
          ) : null}
        </section>
        <p className="mt-6 text-center text-[13px] text-balance text-ink-2">
          <ShieldCheck className="mr-1.5 inline size-4 align-[-3px] text-good" aria-hidden />
          {t("auth.promise", { server })}
        </p>
        <div className="mt-5">
          <LanguageLine />
        </div>
      </main>
    </div>
  );
}

/** A button that looks like a link in a sentence. */
export function TextButton({
  onClick,
  disabled,
  children,
}: {
  onClick(): void;
  disabled?: boolean;
  children: ReactNode;
}) {
  return (
    <button
      type="button"
      // Not disabled, which would take the focus from whoever has just pressed it.
      onClick={disabled === true ? undefined : onClick}
      aria-disabled={disabled === true ? true : undefined}
      className="touch rounded font-medium text-accent-ink hover:underline aria-disabled:cursor-default aria-disabled:text-ink-3 aria-disabled:no-underline"
    >
      {children}
    </button>
  );
}

/** Other ways, one under the other. */
export function Ways({ children }: { children: ReactNode }) {
  return <div className="mt-4 flex flex-col items-center gap-3 text-sm">{children}</div>;
}
