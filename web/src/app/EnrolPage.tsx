import { useCallback, useMemo, useState } from "react";
import { Enrol } from "../features/auth/Enrol";
import { LeaveDialog } from "../features/auth/LeaveDialog";
import { FirstFactor } from "../features/security/FirstFactor";
import { openAccount } from "../stores/account";
import type { App, Phase } from "../stores/app";

/** Leads through setting up the second factor that the server wants. */
export function EnrolPage({ app, phase }: { app: App; phase: Extract<Phase, { at: "enrol" }> }) {
  const { session, due, over } = phase;
  const [done, setDone] = useState(false);
  const [leaving, setLeaving] = useState(false);
  const end = useCallback(() => setDone(true), []);
  const account = useMemo(() => openAccount(session, app.confirming.confirm, () => app.signOut()), [session, app]);
  return (
    <>
      <Enrol
        server={app.server}
        due={due}
        over={over}
        done={done}
        onGoOn={() => void app.enrolled()}
        onSignOut={() => setLeaving(true)}
      >
        {done ? null : <FirstFactor account={account} userId={session.credentials.userId} onDone={end} />}
      </Enrol>
      {leaving ? <LeaveDialog onSignOut={() => app.signOut()} onClose={() => setLeaving(false)} /> : null}
    </>
  );
}
