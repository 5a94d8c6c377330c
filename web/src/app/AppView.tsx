import { lazy, Suspense, useState } from "react";
import { useStore } from "zustand";
import { SignIn } from "../features/auth/SignIn";
import { SignUp } from "../features/auth/SignUp";
import { t, useLanguage } from "../i18n";
import type { App } from "../stores/app";
import { Button, Mark } from "../ui/core";
import { Toaster } from "../ui/toast";
import { Opening } from "./Opening";

// What only a signed-in person sees comes after the first page.
const RecoveryKey = lazy(() => import("../features/identity/RecoveryKey").then((m) => ({ default: m.RecoveryKey })));
const Unlock = lazy(() => import("../features/identity/Unlock").then((m) => ({ default: m.Unlock })));
const ChatView = lazy(() => import("./ChatView").then((m) => ({ default: m.ChatView })));

export function AppView({ app }: { app: App }) {
  useLanguage();
  return (
    <>
      <Suspense fallback={<Opening />}>
        <Current app={app} />
      </Suspense>
      <Toaster />
    </>
  );
}

function Current({ app }: { app: App }) {
  const phase = useStore(app.phase);
  const [page, setPage] = useState<"in" | "up">("in");
  switch (phase.at) {
    case "starting":
    case "opening":
      return <Opening />;
    case "failed":
      return <Failed reason={phase.reason} />;
    case "signedOut":
      return page === "in" ? (
        <SignIn
          server={app.server}
          note={phase.ended ? t("boot.endedText") : undefined}
          onSubmit={app.signIn}
          onSignUp={() => setPage("up")}
        />
      ) : (
        <SignUp
          server={app.server}
          info={app.registrationInfo}
          isNameFree={app.isNameFree}
          onSubmit={app.signUp}
          onSignIn={() => setPage("in")}
        />
      );
    case "setup":
      return (
        <RecoveryKey
          userId={phase.userId}
          recoveryKey={phase.recoveryKey}
          failure={phase.failure}
          onRetry={() => void app.makeIdentity()}
          onConfirmed={app.confirmIdentity}
        />
      );
    case "locked":
      return <Unlock userId={phase.userId} onUnlock={app.unlock} onSignOut={() => void app.signOut()} />;
    case "ready":
      return <ChatView chat={phase.chat} />;
  }
}

function Failed({ reason }: { reason: string }) {
  return (
    <main className="flex h-full flex-col items-center justify-center gap-4 bg-side px-6 text-center">
      <Mark size={40} />
      <h1 className="text-lg font-semibold">{t("shell.errorTitle")}</h1>
      <p role="alert" className="max-w-sm text-sm leading-relaxed text-ink-2 wrap-anywhere">
        {t("boot.failed", { reason })}
      </p>
      <Button variant="primary" onClick={() => location.reload()}>
        {t("shell.reload")}
      </Button>
    </main>
  );
}
