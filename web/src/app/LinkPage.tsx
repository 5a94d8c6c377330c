import { useEffect, useState } from "react";
import { ByDevice } from "../features/auth/ByDevice";
import type { App } from "../stores/app";
import { createLinking } from "../stores/linking";
import type { SignIn } from "../stores/signIn";

/** Signing in by another device; it asks as long as the page is there. */
export function LinkPage({ app, model, onSignIn }: { app: App; model: SignIn; onSignIn(): void }) {
  const [linking] = useState(() =>
    createLinking({ baseUrl: app.baseUrl, deviceName: app.deviceName, onAllowed: (next) => model.linked(next) }),
  );
  useEffect(() => {
    void linking.begin();
    return () => linking.stop();
  }, [linking]);
  return <ByDevice server={app.server} linking={linking} model={model} onSignIn={onSignIn} />;
}
