import { ChevronLeft, CircleAlert, Laptop, LogOut, Monitor, Moon, Smartphone, Sun } from "lucide-react";
import { type ReactNode, useEffect, useState } from "react";
import { formatShort, t } from "../../i18n";
import { setTheme, theme } from "../../stores/appearance";
import { useChat, useValue } from "../../stores/context";
import { describe } from "../../stores/failed";
import type { Device } from "../../stores/model";
import { Avatar, Button, Callout, Kbd, Skeleton } from "../../ui/core";
import { IconButton } from "../../ui/icon";
import { LanguageChoice } from "../../ui/language";
import { Segmented } from "../../ui/segmented";
import { SignOutDialog } from "./SignOutDialog";

export function Settings({ onBack }: { onBack(): void }) {
  const chat = useChat();
  const choice = useValue(theme);
  const [leaving, setLeaving] = useState(false);
  return (
    <main className="h-full overflow-y-auto bg-canvas">
      <header className="sticky top-0 z-10 flex h-15 items-center gap-2 border-b border-line bg-canvas px-2 sm:px-4">
        <IconButton label={t("back")} tooltip={false} onClick={onBack}>
          <ChevronLeft />
        </IconButton>
        <h1 className="text-[15px] font-semibold">{t("settings.title")}</h1>
      </header>
      <div className="mx-auto flex max-w-2xl flex-col gap-9 px-4 py-8 sm:px-6">
        <section className="flex items-center gap-4">
          <Avatar name={chat.me.name} seed={chat.me.userId} size={64} />
          <div className="min-w-0">
            <h2 className="truncate text-lg font-semibold tracking-tight" dir="auto">
              {chat.me.name}
            </h2>
            <p className="truncate text-sm text-ink-2 select-all">{chat.me.userId}</p>
          </div>
        </section>
        <Section title={t("settings.appearance")}>
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
        </Section>
        <Section title={t("settings.devices")} text={t("settings.devicesText")}>
          <Devices />
        </Section>
        <Section title={t("settings.keyboard")} className="pointer-coarse:hidden">
          <dl className="grid grid-cols-[1fr_auto] gap-x-6 gap-y-2.5 text-sm">
            <Shortcut what={t("settings.kJump")} keys={[t("keys.ctrl"), "K"]} />
            <Shortcut what={t("settings.kClose")} keys={[t("keys.esc")]} />
            <Shortcut what={t("settings.kSend")} keys={[t("keys.enter")]} />
            <Shortcut what={t("settings.kLine")} keys={[t("keys.shift"), t("keys.enter")]} />
            <Shortcut what={t("settings.kMove")} keys={["↑", "↓"]} />
            <Shortcut what={t("settings.kEdit")} keys={["↑", "R"]} />
          </dl>
        </Section>
        <div>
          <Button onClick={() => setLeaving(true)} className="text-bad!">
            <LogOut className="size-4" /> {t("settings.signOut")}
          </Button>
        </div>
      </div>
      <SignOutDialog open={leaving} onOpenChange={setLeaving} />
    </main>
  );
}

function Section({
  title,
  text,
  className,
  children,
}: {
  title: string;
  text?: string;
  className?: string;
  children: ReactNode;
}) {
  return (
    <section className={className}>
      <h2 className="text-[15px] font-semibold">{title}</h2>
      {text !== undefined ? <p className="mt-0.5 text-sm text-ink-2">{text}</p> : null}
      <div className="mt-3 rounded-2xl border border-line bg-raised p-4">{children}</div>
    </section>
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

function Devices() {
  const chat = useChat();
  const [devices, setDevices] = useState<Device[] | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  useEffect(() => {
    let current = true;
    chat.devices().then(
      (list) => current && setDevices(list),
      (error: unknown) => current && setFailure(describe(error)),
    );
    return () => {
      current = false;
    };
  }, [chat]);

  if (failure !== null) {
    return (
      <Callout tone="bad" role="alert" icon={<CircleAlert />}>
        {failure}
      </Callout>
    );
  }
  if (devices === null) return <Skeleton className="h-12 w-full" />;
  return (
    <ul className="flex flex-col gap-4">
      {devices.map((device) => (
        <li key={device.id} className="flex items-center gap-3">
          <span className="flex size-10 shrink-0 items-center justify-center rounded-xl bg-sunken text-ink-2">
            {/Android|iOS/.test(device.name) ? (
              <Smartphone className="size-5" aria-hidden />
            ) : (
              <Laptop className="size-5" aria-hidden />
            )}
          </span>
          <div className="min-w-0 flex-1">
            <p className="line-clamp-2 text-left text-sm font-medium wrap-anywhere" dir="auto">
              {device.name === "" ? t("settings.unnamed") : device.name}
            </p>
            <p className="text-xs text-ink-2 wrap-anywhere">
              {device.id}
              {device.lastSeen !== null ? ` · ${t("settings.lastSeen", { when: formatShort(device.lastSeen) })}` : ""}
            </p>
          </div>
          {device.current ? (
            <span className="shrink-0 rounded-full bg-good-soft px-2.5 py-1 text-xs font-medium text-good">
              {t("settings.thisDevice")}
            </span>
          ) : null}
        </li>
      ))}
    </ul>
  );
}
