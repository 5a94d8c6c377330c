import { formatSize, t } from "../i18n";
import { ApiError, Cancelled } from "../sdk";

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

/** What an errcode means wherever it comes from. What a flow knows better of one it says itself. */
const sentences: Readonly<Record<string, () => string>> = {
  M_FORBIDDEN: () => t("failed.forbidden"),
  M_GUEST_ACCESS_FORBIDDEN: () => t("failed.forbidden"),
  M_NOT_FOUND: () => t("failed.notFound"),
  M_UNRECOGNIZED: () => t("failed.unrecognized"),
  M_UNKNOWN_TOKEN: () => t("failed.gone"),
  M_MISSING_TOKEN: () => t("failed.gone"),
  M_USER_LOCKED: () => t("barred.locked"),
  M_USER_SUSPENDED: () => t("barred.suspended"),
  M_USER_DEACTIVATED: () => t("barred.deactivated"),
  M_WEAK_PASSWORD: () => t("barred.weakPassword"),
  M_USER_IN_USE: () => t("signUp.nameTaken"),
  M_INVALID_USERNAME: () => t("signUp.nameBad"),
  M_THREEPID_IN_USE: () => t("signUp.emailTaken"),
  M_THREEPID_DENIED: () => t("signUp.emailDenied"),
  M_THREEPID_AUTH_FAILED: () => t("mail.notYet"),
  M_THREEPID_MEDIUM_NOT_SUPPORTED: () => t("failed.noMail"),
  "IM.CONCLAVE.AUTHENTICATOR_UNREADABLE": () => t("failed.authenticator"),
  M_SESSION_EXPIRED: () => t("mail.over"),
};

/** What the layers below call by a name. */
const own: Readonly<Record<string, () => string>> = {
  confirmation_impossible: () => t("confirm.impossible"),
  password_needed: () => t("failed.cancelled"),
  factor_unknown: () => t("signIn.factorUnknown"),
  no_secret_storage: () => t("failed.noStorage"),
  identity_changed: () => t("failed.identityChanged"),
  signature_refused: () => t("failed.server"),
};

/** How browsers say that they keep nothing for this page, or have no room left for it. */
const storageErrors: ReadonlySet<string> = new Set(["SecurityError", "QuotaExceededError", "UnknownError"]);

/** One sentence for an error: what the person can do about it where that is known, else what the server said, in its own words. */
export function describe(error: unknown): string {
  const code = errcodeOf(error);
  if (code === "M_LIMIT_EXCEEDED") {
    const wait = waitOf(error);
    return wait === null ? t("failed.limited") : t("wait.limited", { wait: sayWait(wait) });
  }
  if (code === "M_TOO_LARGE") {
    const limit = field(error, "limit");
    return typeof limit === "number" ? t("failed.largerThan", { size: formatSize(limit) }) : t("failed.large");
  }
  if (code !== undefined && Object.hasOwn(sentences, code)) return sentences[code]?.() ?? "";
  const name = field(error, "name");
  if (
    (error instanceof TypeError && /fetch|network|load failed/i.test(error.message)) ||
    name === "ConnectionError" ||
    name === "TimeoutError" ||
    field(error, "status") === 0
  ) {
    return t("failed.offline");
  }
  if (error instanceof DOMException && storageErrors.has(error.name)) return t("failed.storage");
  if (error instanceof Cancelled) return t("failed.cancelled");
  const message = error instanceof Error ? error.message : String(error);
  if (Object.hasOwn(own, message)) return own[message]?.() ?? "";
  if (code !== undefined) return quote(error);
  return t("failed.other", { reason: message.slice(0, 200) });
}

/** What the server says that no errcode does. Its texts are English; of its own faults they say nothing that helps. */
function quote(error: unknown): string {
  const said = field(field(error, error instanceof ApiError ? "body" : "data"), "error");
  const status = Number(field(error, "status") ?? field(error, "httpStatus") ?? 500);
  // 502: somebody whom the server has asked, such as the directory of the organization.
  const own = status < 400 || (status >= 500 && status !== 502);
  return own || typeof said !== "string" || said === ""
    ? t("failed.server")
    : t("failed.said", { said: said.slice(0, 200) });
}
