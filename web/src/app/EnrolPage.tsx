import { Enrol } from "../features/auth/Enrol";
import type { App, Phase } from "../stores/app";

/** Leads through setting up the second factor that the server wants. */
export function EnrolPage({ app, phase }: { app: App; phase: Extract<Phase, { at: "enrol" }> }) {
  return (
    <Enrol
      server={app.server}
      due={phase.due}
      over={phase.over}
      done={false}
      onGoOn={() => void app.enrolled()}
      onSignOut={() => void app.signOut()}
    >
      {null}
    </Enrol>
  );
}
