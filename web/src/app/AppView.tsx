import { lazy, Suspense, useState } from "react";
import { useStore } from "zustand";
import { t, useLanguage } from "../i18n";
import type { App } from "../stores/app";
import { useValue } from "../stores/context";
import { Button, Mark } from "../ui/core";
import { Toaster } from "../ui/toast";
import { Opening } from "./Opening";
import { SignedOut } from "./SignedOut";

// What only a signed-in person sees comes after the first page.
const RecoveryKey = lazy(() => import("../features/identity/RecoveryKey").then((m) => ({ default: m.RecoveryKey })));
const Unlock = lazy(() => import("../features/identity/Unlock").then((m) => ({ default: m.Unlock })));
const ConfirmDialog = lazy(() =>
  import("../features/security/ConfirmDialog").then((m) => ({ default: m.ConfirmDialog })),
);
const BarredPage = lazy(() => import("./BarredPage").then((m) => ({ default: m.BarredPage })));
const EnrolPage = lazy(() => import("./EnrolPage").then((m) => ({ default: m.EnrolPage })));
const ChatView = lazy(() => import("./ChatView").then((m) => ({ default: m.ChatView })));

export function AppView({ app }: { app: App }) {
  useLanguage();
  return (
    <>
      <Suspense fallback={<Opening />}>
        <Current app={app} />
      </Suspense>
      <Confirming of={app.confirming} />
      <Toaster />
    </>
  );
}

/** Loaded with the first question, and there from then on. */
function Confirming({ of }: { of: App["confirming"] }) {
  const asked = useValue(of.asking) !== null;
  const [needed, setNeeded] = useState(false);
  if (asked && !needed) setNeeded(true);
  return needed ? (
    <Suspense>
      <ConfirmDialog confirming={of} />
    </Suspense>
  ) : null;
}

function Current({ app }: { app: App }) {
  const phase = useStore(app.phase);
  switch (phase.at) {
    case "starting":
    case "opening":
      return <Opening />;
    case "failed":
      return <Failed reason={phase.reason} />;
    case "signedOut":
      return <SignedOut app={app} phase={phase} />;
    case "barred":
      return <BarredPage app={app} userId={phase.userId} />;
    case "enrol":
      return <EnrolPage app={app} phase={phase} />;
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
