import { clsx } from "clsx";
import { lazy, Suspense, useCallback, useEffect, useState } from "react";
import { useLocation, useRoute } from "wouter";
import { NewDirect } from "../features/create/NewDirect";
import { NewGroup } from "../features/create/NewGroup";
import { Jump } from "../features/rooms/Jump";
import { SignOutDialog } from "../features/settings/SignOutDialog";
import { t } from "../i18n";
import { ChatContext, useValue } from "../stores/context";
import type { Chat } from "../stores/model";
import { Empty, Kbd } from "../ui/core";
import { TooltipProvider } from "../ui/icon";
import { Boundary } from "../ui/Boundary";
import { useTitle } from "../ui/title";
import { MessagesSquare } from "lucide-react";
import { Broken } from "./Broken";
import { RoomView } from "./RoomView";
import { Sidebar } from "./Sidebar";
import { useOneColumn } from "./useOneColumn";

const SettingsView = lazy(() => import("./SettingsView").then((m) => ({ default: m.SettingsView })));

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
  const [settings, page] = useRoute("/settings/:page?");
  const roomId = match === null ? null : safeDecode(match.id);
  const [open, setOpen] = useState<Open>(initiallyOpen);
  const show = useCallback((id: string) => navigate(`/room/${encodeURIComponent(id)}`), [navigate]);
  const home = useCallback(() => navigate("/"), [navigate]);
  const toLetIn = useValue(chat.account.arrivedLink) !== null;
  // The page of the sessions looks at it.
  useEffect(() => {
    if (toLetIn) navigate("/settings/sessions", { replace: true });
  }, [toLetIn, navigate]);
  useTitle(
    rooms.find((room) => room.id === roomId)?.name ?? (settings ? t("settings.title") : null),
    rooms.reduce((sum, room) => sum + (room.membership === "invited" ? 1 : room.unread), 0),
  );

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
          {inside && !phone ? (
            <a
              href="#content"
              className="fixed top-2 left-2 z-50 rounded-lg bg-accent px-4 py-2.5 text-sm font-medium text-on-accent not-focus-visible:sr-only"
            >
              {t("shell.skip")}
            </a>
          ) : null}
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
          <div
            id="content"
            tabIndex={-1}
            className={clsx("h-full min-w-0 flex-1 outline-none", !inside && "max-md:hidden")}
          >
            <Boundary key={settings ? "settings" : (roomId ?? "none")} fallback={<Broken />}>
              {settings ? (
                <Suspense fallback={<SettingsOpening />}>
                  <SettingsView open={page.page ?? null} onLeave={home} onSignOut={() => setOpen("signOut")} />
                </Suspense>
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

/** An address that somebody typed may not be one. */
function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function Nothing() {
  return (
    <main className="flex h-full flex-col items-center justify-center pb-10">
      <Empty page icon={<MessagesSquare />} title={t("shell.pick")}>
        <p className="flex items-center gap-1.5">
          <Kbd>{t("keys.ctrl")}</Kbd>
          <Kbd>K</Kbd> {t("shell.jump")}
        </p>
      </Empty>
    </main>
  );
}

/** While the settings are loaded. */
function SettingsOpening() {
  return (
    <main aria-busy data-loading className="h-full bg-canvas">
      <h1 className="sr-only">{t("settings.title")}</h1>
    </main>
  );
}
