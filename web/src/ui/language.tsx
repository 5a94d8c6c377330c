import { clsx } from "clsx";
import { currentLanguage, type Language, languages, setLanguage, t } from "../i18n";
import { Segmented } from "./segmented";
import { toast } from "./toast";

const names = Object.entries(languages) as [Language, string][];

/** The page stays in the language that it is in where the other one cannot be had. */
function choose(language: Language): void {
  setLanguage(language).catch(() => toast("bad", t("failed.language")));
}

/** The language among the settings. */
export function LanguageChoice() {
  return (
    <Segmented
      label={t("language")}
      value={currentLanguage()}
      onChange={choose}
      options={names.map(([value, label]) => ({ value, label, lang: value }))}
    />
  );
}

/** The language below a page that is not about it: quiet, and there for whoever cannot read the page. */
export function LanguageLine() {
  return (
    <div role="group" aria-label={t("language")} className="flex justify-center gap-5 text-[13px]">
      {names.map(([value, label]) => {
        const chosen = value === currentLanguage();
        return (
          <button
            key={value}
            type="button"
            lang={value}
            aria-pressed={chosen}
            onClick={() => choose(value)}
            className={clsx("touch rounded px-1", chosen ? "font-medium text-ink" : "text-accent-ink hover:underline")}
          >
            {label}
          </button>
        );
      })}
    </div>
  );
}
