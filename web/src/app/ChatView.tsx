import { useCallback, useEffect, useState, useSyncExternalStore } from "react";
import { useLocation, useRoute } from "wouter";
import { NewDirect } from "../features/create/NewDirect";
import { NewGroup } from "../features/create/NewGroup";
import { Jump } from "../features/rooms/Jump";
import { Settings } from "../features/settings/Settings";
import { SignOutDialog } from "../features/settings/SignOutDialog";
import { t } from "../i18n";
import { ChatContext, useValue } from "../stores/context";
import type { Chat } from "../stores/model";
import { Button, Empty, Kbd } from "../ui/core";
import { TooltipProvider } from "../ui/icon";
import { Boundary } from "../ui/Boundary";
import { MessagesSquare } from "lucide-react";
import { RoomView } from "./RoomView";
import { Sidebar } from "./Sidebar";

type Open = "jump" | "direct" | "group" | "signOut" | null;

/** The signed-in client: the list of conversations beside one of them; on a phone one or the other. */
export function ChatView({
  chat,
  initiallyOpen = null,
  membersOpen,
}: {
  chat: Chat;
  initiallyOpen?: Open;
  membersOpen?: boolean;
}) {
  const rooms = useValue(chat.rooms);
  const [, navigate] = useLocation();
  const [, match] = useRoute("/room/:id");
  const [settings] = useRoute("/settings");
  const roomId = match === null ? null : safeDecode(match.id);
  const [open, setOpen] = useState<Open>(initiallyOpen);
  const show = useCallback((id: string) => navigate(`/room/${encodeURIComponent(id)}`), [navigate]);
  const home = useCallback(() => navigate("/"), [navigate]);
  useTitle(rooms.reduce((sum, room) => sum + (room.membership === "invited" ? 1 : room.unread), 0));

  useEffect(() => {
    function key(event: KeyboardEvent): void {
      if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") {
        event.preventDefault();
        setOpen((current) => (current === "jump" ? null : "jump"));
      }
    }
    window.addEventListener("keydown", key);
    return () => window.removeEventListener("keydown", key);
  }, []);

  const phone = useOneColumn();
  const inside = roomId !== null || settings;
  const opener = (what: Open) => (isOpen: boolean) => setOpen(isOpen ? what : null);
  return (
    <ChatContext value={chat}>
      <TooltipProvider delayDuration={450}>
        <div className="flex h-full bg-canvas">
          <div
            role={phone && !inside ? "main" : "complementary"}
            aria-label={t("shell.rooms")}
            className={inside ? "h-full w-80 shrink-0 max-md:hidden" : "h-full w-full shrink-0 md:w-80"}
          >
            <Sidebar
              selected={roomId}
              onJump={() => setOpen("jump")}
              onNewDirect={() => setOpen("direct")}
              onNewGroup={() => setOpen("group")}
              onSettings={() => navigate("/settings")}
              onSignOut={() => setOpen("signOut")}
            />
          </div>
          <div className={inside ? "h-full min-w-0 flex-1" : "h-full min-w-0 flex-1 max-md:hidden"}>
            <Boundary key={roomId ?? "none"} fallback={<Broken />}>
              {settings ? (
                <Settings onBack={home} />
              ) : roomId !== null ? (
                <RoomView key={roomId} roomId={roomId} onBack={home} membersOpen={membersOpen === true} />
              ) : (
                <Nothing />
              )}
            </Boundary>
          </div>
        </div>
        <Jump open={open === "jump"} onOpenChange={opener("jump")} rooms={rooms} onPick={show} />
        <NewDirect open={open === "direct"} onOpenChange={opener("direct")} onCreated={show} />
        <NewGroup open={open === "group"} onOpenChange={opener("group")} onCreated={show} />
        <SignOutDialog open={open === "signOut"} onOpenChange={opener("signOut")} />
      </TooltipProvider>
    </ChatContext>
  );
}

/** As in the style sheet: below `md` there is one column, and the list is the page. */
const wide = "(width >= 48rem)";

function useOneColumn(): boolean {
  return useSyncExternalStore(
    (listener) => {
      const query = matchMedia(wide);
      query.addEventListener("change", listener);
      return () => query.removeEventListener("change", listener);
    },
    () => !matchMedia(wide).matches,
  );
}

/** An address that somebody typed may not be one. */
function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function useTitle(unread: number): void {
  useEffect(() => {
    document.title = unread > 0 ? `(${unread > 99 ? "99+" : unread}) Conclave` : "Conclave";
  }, [unread]);
}

function Nothing() {
  return (
    <main className="flex h-full flex-col items-center justify-center pb-10">
      <Empty page icon={<MessagesSquare />} title={t("shell.pick")}>
        <p className="flex items-center gap-1.5">
          <Kbd>Ctrl</Kbd>
          <Kbd>K</Kbd> {t("shell.jump")}
        </p>
      </Empty>
    </main>
  );
}

function Broken() {
  return (
    <main className="flex h-full flex-col items-center justify-center gap-3 px-6 text-center">
      <h1 className="text-[15px] font-semibold">{t("shell.errorTitle")}</h1>
      <p className="text-sm text-ink-2">{t("shell.errorText")}</p>
      <Button onClick={() => location.reload()}>{t("shell.reload")}</Button>
    </main>
  );
}
