import { Archive } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { formatDay, formatSize, t } from "../../i18n";
import type { Account, Export } from "../../stores/account";
import { useChat } from "../../stores/context";
import { useLoaded } from "../../stores/useLoaded";
import { useTask } from "../../stores/useTask";
import { Button } from "../../ui/core";
import { saveBlob } from "../../ui/download";
import { Card, CardBody, RowsLoading, Unavailable } from "../../ui/page";
import { toast } from "../../ui/toast";

/** How often one looks how far the archive has come, while this page is open. */
const lookMs = 4000;

/** All that the server has of the account, as one file: asked for, made by the server, downloaded. */
export function DataExport({ account }: { account: Account }) {
  const { value, failure, asking, reload } = useLoaded(account.export);
  const begin = useTask({}, (sentence) => toast("bad", sentence));
  const working = value?.state === "working";
  // One look after the other: on a slow line the next would come before the answer to the last.
  useEffect(() => {
    if (!working || asking) return undefined;
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") reload();
    }, lookMs);
    return () => clearInterval(timer);
  }, [working, asking, reload]);
  return (
    <Card
      title={t("account.exportTitle")}
      text={t("account.exportText")}
      action={
        value?.state === "none" ? (
          <Button
            busy={begin.busy}
            onClick={() =>
              void begin.run(async () => {
                await account.beginExport();
                reload();
              })
            }
          >
            {t("account.exportBegin")}
          </Button>
        ) : undefined
      }
    >
      {value === null ? (
        failure !== null ? (
          <CardBody>
            <Unavailable failure={failure} onRetry={reload} />
          </CardBody>
        ) : (
          <RowsLoading count={1} />
        )
      ) : value.state === "none" && failure !== null ? (
        <CardBody>
          <Unavailable failure={failure} onRetry={reload} />
        </CardBody>
      ) : value.state === "none" ? null : (
        <Archived account={account} state={value} onDropped={reload} />
      )}
    </Card>
  );
}

/** An archive that is being made, or is there. */
function Archived({ account, state, onDropped }: { account: Account; state: Export; onDropped(): void }) {
  const { busy, run } = useTask({}, (sentence) => toast("bad", sentence));
  const ready = state.state === "ready";
  return (
    <CardBody>
      <div className="flex items-start gap-3">
        <Archive className="mt-0.5 size-5 shrink-0 text-ink-2" aria-hidden />
        <div className="min-w-0 flex-1">
          <p role="status" className="text-sm font-medium">
            {ready ? t("account.exportReady") : t("account.exportWorking")}
          </p>
          <p className="mt-0.5 text-[13px] leading-snug text-ink-2">{noteOf(state)}</p>
          <div className="mt-3 flex flex-wrap gap-2">
            {ready ? <Download account={account} size={state.size} /> : null}
            <Button
              busy={busy}
              onClick={() =>
                void run(async () => {
                  await account.dropExport();
                  if (ready) toast("good", t("account.exportDeleted"));
                  onDropped();
                })
              }
            >
              {ready ? t("account.exportDelete") : t("account.exportStop")}
            </Button>
          </div>
        </div>
      </div>
    </CardBody>
  );
}

function noteOf({ state, rooms, size, expires }: Export): string {
  if (state === "ready")
    return expires === null
      ? formatSize(size)
      : t("account.exportReadyText", { size: formatSize(size), when: formatDay(expires, 0) });
  return rooms.total === 0
    ? t("account.exportStarting")
    : t("account.exportProgress", { done: rooms.done, total: rooms.total });
}

function Download({ account, size }: { account: Account; size: number }) {
  const { me } = useChat();
  const [done, setDone] = useState<number | null>(null);
  const { busy, run } = useTask({}, (sentence) => toast("bad", sentence));
  const stop = useRef(new AbortController());
  useEffect(() => {
    const controller = new AbortController();
    stop.current = controller;
    return () => controller.abort();
  }, []);
  function download(): void {
    const step = Math.max(size / 100, 100_000); // what an eye can follow
    const { signal } = stop.current;
    void run(async () => {
      try {
        const archive = await account.downloadExport((bytes) => setDone(Math.floor(bytes / step) * step), signal);
        saveBlob(`${t("account.exportFile", { name: me.userId.slice(1).replace(":", "-") })}.zip`, archive);
      } catch (error) {
        // Whoever left the page has ended it.
        if (!signal.aborted) throw error;
      } finally {
        setDone(null);
      }
    });
  }
  return (
    <Button variant="primary" busy={busy} onClick={download}>
      {done === null
        ? t("account.exportDownload")
        : t("account.exportLoading", { done: formatSize(done), size: formatSize(size) })}
    </Button>
  );
}
