import { useState } from "react";
import { formatTime, t } from "../i18n";
import { Cancelled, ApiError } from "../sdk";
import { describe, errcodeOf } from "./failed";

/** What a task's own refusals mean, by their errcode. */
export type Words = Readonly<Record<string, string>>;

export interface Task {
  busy: boolean;
  /** One sentence on why it did not work the last time. */
  failure: string | null;
  /** Whether it worked. That somebody did not want to confirm it is no failure, and not success. */
  run(work: () => Promise<void>): Promise<boolean>;
  clear(): void;
}

/** Too many tries, with the time until which one has to wait. */
export function describeWait(until: number, now: number = Date.now()): string {
  const seconds = Math.max(1, Math.ceil((until - now) / 1000));
  return seconds < 90
    ? t("confirm.limitedSeconds", { count: seconds })
    : t("confirm.limitedUntil", { time: formatTime(until) });
}

function explain(error: unknown, words: Words): string {
  const code = errcodeOf(error) ?? "";
  if (Object.hasOwn(words, code)) return words[code] ?? "";
  if (error instanceof ApiError && code === "M_LIMIT_EXCEEDED" && error.retryAfterMs !== undefined)
    return describeWait(Date.now() + error.retryAfterMs);
  return describe(error);
}

/** Something that the person asks for and perhaps has to confirm. `report` takes the sentence where nobody shows `failure`. */
export function useTask(words: Words = {}, report?: (failure: string) => void): Task {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<string | null>(null);
  return {
    busy,
    failure,
    clear: () => setFailure(null),
    async run(work) {
      setBusy(true);
      setFailure(null);
      try {
        await work();
        return true;
      } catch (error) {
        if (!(error instanceof Cancelled)) (report ?? setFailure)(explain(error, words));
        return false;
      } finally {
        setBusy(false);
      }
    },
  };
}
