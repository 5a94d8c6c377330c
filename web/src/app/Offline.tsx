import { CloudOff } from "lucide-react";
import { t } from "../i18n";
import type { Connection } from "../stores/model";

/** Nothing while all is well: the socket and the long poll are the same to a person. */
export function Offline({ connection }: { connection: Connection }) {
  return (
    <div role="status">
      {connection === "offline" ? (
        <p className="mx-3 my-1 flex items-center gap-2 rounded-lg bg-warn-soft px-3 py-2 text-[13px] leading-snug text-warn">
          <CloudOff className="size-4 shrink-0" aria-hidden />
          {t("shell.offline")}
        </p>
      ) : connection === "connecting" ? (
        <span className="sr-only">{t("shell.connecting")}</span>
      ) : null}
    </div>
  );
}
