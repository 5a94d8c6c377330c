import { formatSize, t } from "../i18n";
import { ApiError } from "../sdk";

/** A field of an error of unknown origin: ours, or the SDK's, which has the same names. */
function field(error: unknown, name: string): unknown {
  return typeof error === "object" && error !== null ? (error as Record<string, unknown>)[name] : undefined;
}

export function errcodeOf(error: unknown): string | undefined {
  const code = field(error, "errcode");
  return typeof code === "string" ? code : undefined;
}

/** How long the server wants one to wait, in ms; null where it does not say. */
export function waitOf(error: unknown): number | null {
  const own = field(error, "retryAfterMs");
  const wait = typeof own === "number" ? own : field(field(error, "data"), "retry_after_ms");
  return typeof wait === "number" && wait > 0 ? wait : null;
}

/** A time to wait, as people say it: never shorter than it is. */
export function sayWait(ms: number): string {
  const seconds = Math.max(1, Math.ceil(ms / 1000));
  if (seconds < 90) return t("wait.seconds", { count: seconds });
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 90) return t("wait.minutes", { count: minutes });
  return t("wait.hours", { count: Math.ceil(minutes / 60) });
}

/** One sentence for an error: what the person can do about it where that is known, else what the server said. */
export function describe(error: unknown): string {
  switch (errcodeOf(error)) {
    case "M_FORBIDDEN":
      return t("failed.forbidden");
    case "M_LIMIT_EXCEEDED": {
      const wait = waitOf(error);
      return wait === null ? t("failed.limited") : t("wait.limited", { wait: sayWait(wait) });
    }
    case "M_USER_LOCKED":
      return t("barred.locked");
    case "M_USER_SUSPENDED":
      return t("barred.suspended");
    case "M_USER_DEACTIVATED":
      return t("barred.deactivated");
    case "M_WEAK_PASSWORD":
      return t("barred.weakPassword");
    case "M_UNKNOWN_TOKEN":
    case "M_MISSING_TOKEN":
      return t("failed.gone");
    case "M_TOO_LARGE": {
      const limit = field(error, "limit");
      return typeof limit === "number" ? t("failed.largerThan", { size: formatSize(limit) }) : t("failed.large");
    }
  }
  const name = field(error, "name");
  if (
    (error instanceof TypeError && /fetch|network|load failed/i.test(error.message)) ||
    name === "ConnectionError" ||
    name === "TimeoutError" ||
    field(error, "status") === 0
  ) {
    return t("failed.offline");
  }
  const message = error instanceof ApiError || error instanceof Error ? error.message : String(error);
  return t("failed.other", { reason: message.replace(/^MatrixError: /, "").slice(0, 200) });
}
