import { lazy, Suspense, useEffect, useState } from "react";
import { useStore } from "zustand";
import { t, useLanguage } from "../i18n";
import type { App, Phase } from "../stores/app";
import { useValue } from "../stores/context";
import { Boundary } from "../ui/Boundary";
import { Button, Mark } from "../ui/core";
import { useTitle } from "../ui/title";
import { toast, Toaster } from "../ui/toast";
import { Broken } from "./Broken";
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
const LeaveDialog = lazy(() => import("../features/auth/LeaveDialog").then((m) => ({ default: m.LeaveDialog })));
const ChatView = lazy(() => import("./ChatView").then((m) => ({ default: m.ChatView })));

export function AppView({ app }: { app: App }) {
  useLanguage();
  return (
    <>
      <Boundary fallback={<Broken />}>
        <Suspense fallback={<Opening />}>
          <Current app={app} />
        </Suspense>
      </Boundary>
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
    <Boundary fallback={<Unasked of={of} />}>
      <Suspense>
        <ConfirmDialog confirming={of} />
      </Suspense>
    </Boundary>
  ) : null;
}

/** Without the dialog nobody can answer: whatever waits for it ends, and why is said. */
function Unasked({ of }: { of: App["confirming"] }) {
  const asking = useValue(of.asking);
  useEffect(() => {
    if (asking === null) return;
    asking.cancel();
    toast("bad", t("shell.errorText"));
  }, [asking]);
  return null;
}

/** Once there is a session, nothing of the pages in front of it stays in the address: an invitation brings its token there. */
function useCleanAddress(at: Phase["at"]): void {
  const inFront = at === "starting" || at === "signedOut" || at === "failed";
  useEffect(() => {
    if (inFront) return undefined;
    const clean = (): void => {
      if (/^#\/(register|reset|device)?(\?|$)/.test(location.hash))
        history.replaceState(history.state, "", location.pathname + location.search);
    };
    clean();
    window.addEventListener("hashchange", clean);
    return () => window.removeEventListener("hashchange", clean);
  }, [inFront]);
}

function Current({ app }: { app: App }) {
  const phase = useStore(app.phase);
  useCleanAddress(phase.at);
  switch (phase.at) {
    case "starting":
    case "opening":
      return <Opening />;
    case "failed":
      return <Failed reason={phase.reason} kept={phase.kept} onSignOut={() => app.signOut()} />;
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
          onSignOut={() => void app.signOut()}
          onConfirmed={() => app.confirmIdentity()}
        />
      );
    case "locked":
      return <Unlock userId={phase.userId} onUnlock={(key) => app.unlock(key)} onSignOut={() => void app.signOut()} />;
    case "ready":
      return <ChatView chat={phase.chat} />;
  }
}

/** A session that cannot be opened, now or ever: one can try again, or give it up. */
export function Failed({ reason, kept, onSignOut }: { reason: string; kept: boolean; onSignOut(): Promise<void> }) {
  const [leaving, setLeaving] = useState(false);
  useTitle(t("shell.errorTitle"));
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
      {kept ? <Button onClick={() => setLeaving(true)}>{t("barred.signOut")}</Button> : null}
      {leaving ? (
        <Suspense>
          <LeaveDialog onSignOut={onSignOut} onClose={() => setLeaving(false)} />
        </Suspense>
      ) : null}
    </main>
  );
}
