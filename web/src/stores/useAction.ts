import { useState } from "react";
import { describe } from "./failed";

interface Action {
  busy: boolean;
  /** One sentence on why it did not work the last time, where nobody else reports it. */
  failure: string | null;
  /** Does what the person asked for; what goes wrong is told, never thrown. */
  run(work: () => Promise<void>): Promise<void>;
}

/** Something that the person asks for and that the server may refuse. `report` takes the sentence, for example to a toast. */
export function useAction(report?: (failure: string) => void): Action {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<string | null>(null);
  return {
    busy,
    failure,
    async run(work) {
      setBusy(true);
      setFailure(null);
      try {
        await work();
      } catch (error) {
        (report ?? setFailure)(describe(error));
      }
      setBusy(false);
    },
  };
}
