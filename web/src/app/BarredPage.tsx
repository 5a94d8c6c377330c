import { useState } from "react";
import { Barred } from "../features/auth/Barred";
import { LeaveDialog } from "../features/auth/LeaveDialog";
import type { App } from "../stores/app";

/** An administrator has locked the account: one can come again, or give its session up. */
export function BarredPage({ app, userId }: { app: App; userId: string }) {
  const [leaving, setLeaving] = useState(false);
  return (
    <>
      <Barred server={app.server} userId={userId} onAgain={() => app.again()} onSignOut={() => setLeaving(true)} />
      {leaving ? <LeaveDialog onSignOut={() => app.signOut()} onClose={() => setLeaving(false)} /> : null}
    </>
  );
}
