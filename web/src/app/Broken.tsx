import { t } from "../i18n";
import { Button } from "../ui/core";

/** In the place of a page, or a part of one, that broke or could not be loaded. */
export function Broken() {
  return (
    <main className="flex h-full flex-col items-center justify-center gap-3 px-6 text-center">
      <h1 className="text-[15px] font-semibold">{t("shell.errorTitle")}</h1>
      <p role="alert" className="text-sm text-ink-2">
        {t("shell.errorText")}
      </p>
      <Button onClick={() => location.reload()}>{t("shell.reload")}</Button>
    </main>
  );
}
