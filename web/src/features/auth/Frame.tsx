import { ShieldCheck } from "lucide-react";
import type { ReactNode } from "react";
import { t } from "../../i18n";
import { Mark } from "../../ui/core";
import { LanguageLine } from "../../ui/language";

/** The card in which one signs in, in the middle of an otherwise empty page. */
export function Frame({
  title,
  text,
  server,
  other,
  children,
}: {
  title: string;
  text: string;
  server: string;
  /** The way to the other of the two pages. */
  other: { question: string; action: string; go(): void };
  children: ReactNode;
}) {
  return (
    <div className="h-full overflow-y-auto bg-side">
      <main className="mx-auto flex min-h-full w-full max-w-[27rem] flex-col justify-center px-4 py-10">
        <div className="mb-7 flex items-center gap-2.5 self-center">
          <Mark size={30} />
          <span className="text-lg font-semibold tracking-tight">Conclave</span>
        </div>
        <section className="rounded-2xl border border-line bg-raised p-6 shadow-card sm:p-8">
          <h1 className="text-xl font-semibold tracking-tight">{title}</h1>
          <p className="mt-1.5 mb-6 text-sm leading-relaxed text-ink-2">{text}</p>
          {children}
          <p className="mt-5 text-center text-sm text-ink-2">
            {other.question}{" "}
            <button
              type="button"
              onClick={other.go}
              className="touch rounded font-medium text-accent-ink hover:underline"
            >
              {other.action}
            </button>
          </p>
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
