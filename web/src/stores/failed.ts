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

/** One sentence for an error: what the person can do about it where that is known, else what the server said. */
export function describe(error: unknown): string {
  switch (errcodeOf(error)) {
    case "M_FORBIDDEN":
      return t("failed.forbidden");
    case "M_LIMIT_EXCEEDED":
      return t("failed.limited");
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
