import { clsx } from "clsx";
import { ChevronLeft, ChevronRight, LogOut } from "lucide-react";
import { type ReactNode, useEffect, useRef } from "react";
import { Link } from "wouter";
import { t } from "../../i18n";
import { IconButton } from "../../ui/icon";

export interface SettingsPage {
  /** The last part of its address. */
  id: string;
  name: string;
  /** What is in it, in a few words. */
  text: string;
  icon: ReactNode;
  /** What stands below its name. */
  intro?: string;
  content: ReactNode;
}

interface Props {
  pages: SettingsPage[];
  /** The open page; null: on a phone the list of pages, elsewhere the first. */
  open: string | null;
  /** Back to the conversations. */
  onLeave(): void;
  /** Back to the list of pages, on a phone. */
  onList(): void;
  onSignOut(): void;
}

/** The settings: a list of pages beside one of them; on a phone one or the other. */
export function Settings({ pages, open, onLeave, onList, onSignOut }: Props) {
  const chosen = pages.find(({ id }) => id === open) ?? null;
  const page = chosen ?? pages[0];
  const inside = chosen !== null;
  return (
    <main className="flex h-full flex-col bg-canvas">
      <header className="flex h-15 shrink-0 items-center gap-2 border-b border-line px-2 sm:px-4">
        <IconButton label={t("back")} tooltip={false} onClick={onLeave} className={clsx(inside && "max-md:hidden")}>
          <ChevronLeft />
        </IconButton>
        {inside ? (
          <IconButton label={t("back")} tooltip={false} onClick={onList} className="md:hidden">
            <ChevronLeft />
          </IconButton>
        ) : null}
        <p className="text-[15px] font-semibold">{t("settings.title")}</p>
      </header>
      <div className="flex min-h-0 flex-1">
        <Pages pages={pages} current={page?.id ?? ""} inside={inside} onSignOut={onSignOut} />
        {page !== undefined ? <Page key={page.id} page={page} inside={inside} /> : null}
      </div>
    </main>
  );
}

function Pages({
  pages,
  current,
  inside,
  onSignOut,
}: {
  pages: SettingsPage[];
  current: string;
  inside: boolean;
  onSignOut(): void;
}) {
  const list = useRef<HTMLElement>(null);
  const left = useRef<string | null>(null);
  // Whoever comes back from a page by a button that is gone goes on at its entry.
  useEffect(() => {
    const back = inside ? null : left.current;
    left.current = inside ? current : null;
    if (back !== null && (document.activeElement ?? document.body) === document.body)
      list.current?.querySelector<HTMLElement>(`a[href="/settings/${back}"]`)?.focus();
  }, [inside, current]);
  return (
    <nav
      ref={list}
      aria-label={t("settingsPages.sections")}
      className={clsx(
        "flex shrink-0 flex-col gap-1 overflow-y-auto p-3 max-md:w-full md:w-56 md:border-r md:border-line",
        inside && "max-md:hidden",
      )}
    >
      <h1 className="px-2 pt-2 pb-3 text-xl font-semibold tracking-tight md:hidden">{t("settings.title")}</h1>
      <ul className="flex flex-col gap-1">
        {pages.map(({ id, name, text, icon }) => (
          <li key={id}>
            <Link
              href={`/settings/${id}`}
              aria-current={id === current && inside ? "page" : undefined}
              className={clsx(
                "flex items-center gap-3 rounded-xl px-2.5 py-2 transition-colors hover:bg-hover max-md:min-h-14",
                id === current && "md:bg-selected md:hover:bg-selected",
              )}
            >
              <span
                aria-hidden
                className="flex shrink-0 items-center justify-center text-ink-2 max-md:size-10 max-md:rounded-xl max-md:bg-sunken [&_svg]:size-[18px]"
              >
                {icon}
              </span>
              <span className="min-w-0 flex-1">
                <span className="block text-sm font-medium">{name}</span>
                <span className="block text-[13px] leading-snug text-ink-2 md:hidden">{text}</span>
              </span>
              <ChevronRight className="size-4 shrink-0 text-ink-3 md:hidden" aria-hidden />
            </Link>
          </li>
        ))}
      </ul>
      <button
        type="button"
        onClick={onSignOut}
        className="mt-2 flex min-h-11 items-center gap-3 rounded-xl border-line px-2.5 py-2 text-left text-sm font-medium text-bad transition-colors hover:bg-hover md:mt-3"
      >
        <span
          aria-hidden
          className="flex shrink-0 items-center justify-center max-md:size-10 max-md:rounded-xl max-md:bg-bad-soft [&_svg]:size-[18px]"
        >
          <LogOut />
        </span>
        {t("settings.signOut")}
      </button>
    </nav>
  );
}

function Page({ page, inside }: { page: SettingsPage; inside: boolean }) {
  const heading = useRef<HTMLHeadingElement>(null);
  // Whoever came by the list goes on reading here. A page that was opened by its address begins at its beginning.
  const opened = useRef(inside && document.activeElement?.closest("nav") !== null);
  useEffect(() => {
    if (opened.current) heading.current?.focus({ preventScroll: true });
  }, []);
  return (
    <div className={clsx("min-w-0 flex-1 overflow-y-auto", !inside && "max-md:hidden")}>
      <div className="mx-auto flex max-w-2xl flex-col px-4 pt-6 pb-16 sm:px-6 sm:pt-8">
        <h1 ref={heading} tabIndex={-1} className="text-xl font-semibold tracking-tight outline-none">
          {page.name}
        </h1>
        {page.intro !== undefined ? <p className="mt-1 text-sm leading-relaxed text-ink-2">{page.intro}</p> : null}
        <div className="mt-6">{page.content}</div>
      </div>
    </div>
  );
}
