import { useEffect, useState } from "react";
import { Reset } from "../features/auth/Reset";
import { SignUp } from "../features/auth/SignUp";
import type { App } from "../stores/app";
import { createReset } from "../stores/reset";
import { createSignUp } from "../stores/signUp";

/** Making an account; the address of an invitation brings its token. */
export function SignUpPage({ app, hash, onSignIn }: { app: App; hash: string; onSignIn(): void }) {
  const [model] = useState(() =>
    createSignUp({
      baseUrl: app.baseUrl,
      deviceName: app.deviceName,
      onEntered: (credentials, password) => app.enter(credentials, { isNew: true, password }),
    }),
  );
  useEffect(() => {
    const token = new URLSearchParams(hash.split("?")[1] ?? "").get("token");
    if (token === null || token === "") return;
    // Whoever looks over a shoulder, or into the history, need not read it there.
    history.replaceState(history.state, "", location.pathname + location.search + "#/register");
    void model.invite(token.slice(0, 64));
  }, [model, hash]);
  return <SignUp server={app.server} model={model} onSignIn={onSignIn} />;
}

export function ResetPage({ app, onSignIn }: { app: App; onSignIn(): void }) {
  const [model] = useState(() => createReset(app.baseUrl));
  return <Reset server={app.server} model={model} onSignIn={onSignIn} />;
}
