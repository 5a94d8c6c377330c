import { LogOut, Search, Settings as SettingsIcon, SquarePen, UserRound, UsersRound } from "lucide-react";
import { RoomList } from "../features/rooms/RoomList";
import { t } from "../i18n";
import { useChat, useValue } from "../stores/context";
import { Avatar, Dots, Kbd } from "../ui/core";
import { IconButton } from "../ui/icon";
import { Menu } from "../ui/overlay";
import { Offline } from "./Offline";

interface Props {
  selected: string | null;
  onJump(): void;
  onNewDirect(): void;
  onNewGroup(): void;
  onSettings(): void;
  onSignOut(): void;
}

export function Sidebar({ selected, onJump, onNewDirect, onNewGroup, onSettings, onSignOut }: Props) {
  const chat = useChat();
  const rooms = useValue(chat.rooms);
  const loaded = useValue(chat.loaded);
  const connection = useValue(chat.connection);
  return (
    <div className="flex h-full flex-col border-line bg-side md:border-r">
      <h1 className="sr-only">{t("shell.rooms")}</h1>
      <div className="flex h-15 shrink-0 items-center gap-2 pr-2 pl-3">
        <Menu
          align="start"
          trigger={
            <button
              type="button"
              data-testid="account"
              className="flex min-w-0 flex-1 items-center gap-2.5 rounded-lg p-1.5 pointer-coarse:min-h-11 text-left transition-colors hover:bg-hover data-[state=open]:bg-hover"
            >
              <Avatar name={chat.me.name} seed={chat.me.userId} size={30} />
              <span className="min-w-0">
                <span className="block truncate text-sm leading-tight font-semibold" dir="auto">
                  {chat.me.name}
                </span>
                {/* In a line that is always there, so that the list below does not move. */}
                <span
                  data-connection={connection}
                  className="flex items-center gap-1.5 text-xs leading-tight text-ink-2"
                >
                  {connection === "connecting" ? <Dots /> : null}
                  <span className="truncate">
                    {connection === "connecting" ? t("shell.connecting") : chat.me.userId}
                  </span>
                </span>
              </span>
            </button>
          }
          entries={[
            { label: t("shell.settings"), icon: <SettingsIcon />, onSelect: onSettings },
            { label: t("shell.signOut"), icon: <LogOut />, danger: true, onSelect: onSignOut },
          ]}
        />
        <Menu
          trigger={
            <IconButton label={t("shell.new")} tooltip={false}>
              <SquarePen />
            </IconButton>
          }
          entries={[
            { label: t("shell.newDirect"), icon: <UserRound />, onSelect: onNewDirect },
            { label: t("shell.newGroup"), icon: <UsersRound />, onSelect: onNewGroup },
          ]}
        />
      </div>
      <div className="shrink-0 px-3 pb-1">
        <button
          type="button"
          onClick={onJump}
          data-testid="jump"
          className="flex h-9 w-full items-center gap-2 rounded-lg border pointer-coarse:h-11 border-line bg-canvas px-2.5 text-[13px] text-ink-3 transition-colors hover:border-line-strong"
        >
          <Search className="size-4" aria-hidden />
          <span className="flex-1 text-left">{t("shell.jump")}</span>
          <span className="flex gap-0.5 max-md:hidden">
            <Kbd>{t("keys.ctrl")}</Kbd>
            <Kbd>K</Kbd>
          </span>
        </button>
      </div>
      <Offline connection={connection} />
      <RoomList rooms={rooms} loaded={loaded} selected={selected} onNew={onNewDirect} />
    </div>
  );
}
