import { Monitor, Moon, Sun } from "lucide-react";
import type { ReactNode } from "react";
import { t } from "../../i18n";
import { setTheme, theme } from "../../stores/appearance";
import { useValue } from "../../stores/context";
import { Kbd } from "../../ui/core";
import { LanguageChoice } from "../../ui/language";
import { Card, CardBody } from "../../ui/page";
import { Segmented } from "../../ui/segmented";

/** What this browser alone knows: language, colours; and the keys that work here. */
export function Appearance() {
  const choice = useValue(theme);
  return (
    <div className="flex flex-col gap-5">
      <div className="rounded-2xl border border-line bg-raised p-4 sm:p-5">
        <Choice name={t("language")}>
          <LanguageChoice />
        </Choice>
        <Choice name={t("settings.theme")}>
          <Segmented
            label={t("settings.theme")}
            value={choice}
            onChange={setTheme}
            options={[
              { value: "system", label: t("settings.system"), icon: <Monitor /> },
              { value: "light", label: t("settings.light"), icon: <Sun /> },
              { value: "dark", label: t("settings.dark"), icon: <Moon /> },
            ]}
          />
        </Choice>
      </div>
      <Card title={t("settings.keyboard")} className="pointer-coarse:hidden">
        <CardBody>
          <dl className="grid grid-cols-[1fr_auto] gap-x-6 gap-y-2.5 text-sm">
            <Shortcut what={t("settings.kJump")} keys={[t("keys.ctrl"), "K"]} />
            <Shortcut what={t("settings.kClose")} keys={[t("keys.esc")]} />
            <Shortcut what={t("settings.kSend")} keys={[t("keys.enter")]} />
            <Shortcut what={t("settings.kLine")} keys={[t("keys.shift"), t("keys.enter")]} />
            <Shortcut what={t("settings.kMove")} keys={["↑", "↓"]} />
            <Shortcut what={t("settings.kEdit")} keys={["↑", "R"]} />
          </dl>
        </CardBody>
      </Card>
    </div>
  );
}

/** A setting that is one of a few: beside its name, on a phone below it. */
function Choice({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="flex flex-col justify-between gap-3 not-first:mt-4 sm:flex-row sm:items-center">
      <p className="text-sm">{name}</p>
      {children}
    </div>
  );
}

function Shortcut({ what, keys }: { what: string; keys: string[] }) {
  return (
    <>
      <dt className="text-ink-2">{what}</dt>
      <dd className="flex justify-end gap-1">
        {keys.map((key) => (
          <Kbd key={key}>{key}</Kbd>
        ))}
      </dd>
    </>
  );
}
