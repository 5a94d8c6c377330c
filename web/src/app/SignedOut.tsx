import { lazy, useState, useSyncExternalStore } from "react";
import { SignIn } from "../features/auth/SignIn";
import type { App, Phase } from "../stores/app";
import { arrivedLink } from "../stores/arrivedLink";
import { useValue } from "../stores/context";

// Most who come here sign in. The other pages come when somebody wants them.
const SignUpPage = lazy(() => import("./EntryPages").then((m) => ({ default: m.SignUpPage })));
const ResetPage = lazy(() => import("./EntryPages").then((m) => ({ default: m.ResetPage })));
const LinkPage = lazy(() => import("./LinkPage").then((m) => ({ default: m.LinkPage })));
const LeaveDialog = lazy(() => import("../features/auth/LeaveDialog").then((m) => ({ default: m.LeaveDialog })));

const pages = { register: "#/register", reset: "#/reset", device: "#/device" } as const;

function subscribe(listener: () => void): () => void {
  window.addEventListener("hashchange", listener);
  return () => window.removeEventListener("hashchange", listener);
}

/** The part of the address behind `#`, which no server sees: which page this is, and for an invitation its token. */
function useHash(): string {
  return useSyncExternalStore(subscribe, () => location.hash);
}

function go(page: string): void {
  location.hash = page === "" ? "#/" : page;
}

/** The pages in front of a session. */
export function SignedOut({ app, phase }: { app: App; phase: Extract<Phase, { at: "signedOut" }> }) {
  const hash = useHash();
  const toLetIn = useValue(arrivedLink) !== null;
  const [leaving, setLeaving] = useState(false);

  if (hash.startsWith(pages.register)) return <SignUpPage app={app} hash={hash} onSignIn={() => go("")} />;
  if (hash.startsWith(pages.reset)) return <ResetPage app={app} onSignIn={() => go("")} />;
  if (hash.startsWith(pages.device)) return <LinkPage app={app} model={phase.signIn} onSignIn={() => go("")} />;
  return (
    <>
      <SignIn
        key={phase.signIn.userId ?? ""}
        server={app.server}
        model={phase.signIn}
        ended={phase.ended}
        toLetIn={toLetIn}
        onSignUp={() => go(pages.register)}
        onForgot={() => go(pages.reset)}
        onDevice={() => go(pages.device)}
        onSignOut={() => setLeaving(true)}
      />
      {leaving ? <LeaveDialog onSignOut={() => app.signOut()} onClose={() => setLeaving(false)} /> : null}
    </>
  );
}
