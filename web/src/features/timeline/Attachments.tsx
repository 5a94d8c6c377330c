import { clsx } from "clsx";
import {
  CircleAlert,
  Download,
  File as FileIcon,
  FileArchive,
  FileAudio,
  FileText,
  FileVideo,
  ImageOff,
  X,
} from "lucide-react";
import { Dialog } from "radix-ui";
import { useEffect, useRef, useState } from "react";
import { formatSize, t } from "../../i18n";
import type { AttachmentInfo, Message, RoomModel } from "../../stores/model";
import { Button, Dots, Skeleton } from "../../ui/core";
import { useGiveBack } from "../../ui/giveBack";
import { IconButton } from "../../ui/icon";
import { saveBlob } from "../../ui/download";
import { toast } from "../../ui/toast";
import { attachmentFailure, useAttachment } from "./useAttachment";

const most = { width: 340, height: 380 };

/** The size at which a picture is shown, known before it is there, so that nothing jumps. */
function fit({ width, height }: AttachmentInfo): { width: number; height: number } {
  if (width === null || height === null || width <= 0 || height <= 0) return { width: 260, height: 200 };
  const scale = Math.min(1, most.width / width, most.height / height);
  return { width: Math.max(96, Math.round(width * scale)), height: Math.max(72, Math.round(height * scale)) };
}

interface Props {
  room: RoomModel;
  message: Message;
  attachment: AttachmentInfo;
}

export function Picture({ room, message, attachment, onOpen }: Props & { onOpen(): void }) {
  const { url, failure, retry } = useAttachment(room, message.id, true);
  const size = fit(attachment);
  return (
    <div
      className="relative max-w-full overflow-hidden rounded-[14px]"
      style={{ width: size.width, aspectRatio: `${size.width} / ${size.height}` }}
    >
      {failure !== null ? (
        <div className="flex size-full flex-col items-center justify-center gap-2 bg-sunken p-4 text-center text-[13px] text-ink-2">
          <ImageOff className="size-5" aria-hidden />
          {failure}
          <Button size="small" onClick={retry}>
            {t("retry")}
          </Button>
        </div>
      ) : url === null ? (
        <div role="status" aria-label={t("file.downloading", { name: attachment.name })} className="size-full">
          <Skeleton className="size-full rounded-none!" />
        </div>
      ) : (
        <button
          type="button"
          onClick={onOpen}
          aria-label={t("file.open", { name: attachment.name })}
          className="block size-full cursor-zoom-in -outline-offset-2"
        >
          <img src={url} alt={attachment.name} className="animate-appear size-full object-cover" draggable={false} />
        </button>
      )}
    </div>
  );
}

function iconFor(mimetype: string) {
  if (mimetype.startsWith("audio/")) return FileAudio;
  if (mimetype.startsWith("video/")) return FileVideo;
  if (mimetype.startsWith("text/") || mimetype === "application/pdf") return FileText;
  if (/zip|tar|compress|7z/.test(mimetype)) return FileArchive;
  return FileIcon;
}

export function FileCard({ room, message, attachment }: Props) {
  const { busy, download } = useDownload(room, message.id, attachment.name);
  const Icon = iconFor(attachment.mimetype);
  return (
    <button
      type="button"
      onClick={() => void download()}
      aria-busy={busy}
      className="flex max-w-full items-center gap-3 rounded-lg py-0.5 text-left"
    >
      <span className="sr-only">{t("file.downloadAction")}</span>
      <span
        className={clsx(
          "flex size-10 shrink-0 items-center justify-center rounded-xl",
          message.own ? "bg-white/18 text-on-accent" : "bg-raised text-accent-ink",
        )}
      >
        {busy ? <Dots /> : <Icon className="size-5" aria-hidden />}
      </span>
      <span className="min-w-0">
        <span className="block truncate text-sm font-medium" dir="auto">
          {attachment.name}
        </span>
        <span className={clsx("flex items-center gap-1 text-xs", message.own ? "text-on-accent-2" : "text-ink-2")}>
          <Download className="size-3" aria-hidden />
          {attachment.size === null ? t("file.unknownSize") : formatSize(attachment.size)}
        </span>
      </span>
    </button>
  );
}

function useDownload(room: RoomModel, messageId: string, name: string) {
  const [busy, setBusy] = useState(false);
  const stop = useRef<AbortController | null>(null);
  useEffect(() => () => stop.current?.abort(), []);
  async function download(): Promise<void> {
    if (busy) return;
    setBusy(true);
    const control = (stop.current = new AbortController());
    try {
      saveBlob(name, await room.readAttachment(messageId, { thumbnail: false, signal: control.signal }));
    } catch (error) {
      if (!control.signal.aborted) toast("bad", attachmentFailure(error));
    }
    setBusy(false);
  }
  return { busy, download };
}

/** One picture over everything; Escape and a click beside it close it. */
export function Lightbox({ room, message, onClose }: { room: RoomModel; message: Message; onClose(): void }) {
  const attachment = message.body.kind === "image" ? message.body.attachment : null;
  const giveBack = useGiveBack(true);
  if (attachment === null) return null;
  return (
    <Dialog.Root open onOpenChange={(open) => (open ? undefined : onClose())}>
      <Dialog.Portal>
        <Dialog.Overlay className="animate-appear fixed inset-0 z-40 bg-black" />
        <Dialog.Content
          aria-describedby={undefined}
          onCloseAutoFocus={giveBack}
          className="fixed inset-0 z-50 flex flex-col text-white outline-none"
          // Not the first button, which would show its tooltip over the picture.
          onOpenAutoFocus={(event) => {
            event.preventDefault();
            (event.currentTarget as HTMLElement).focus();
          }}
        >
          <Opened room={room} message={message} attachment={attachment} onClose={onClose} />
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Opened({ room, message, attachment, onClose }: Props & { onClose(): void }) {
  const { url, failure, retry } = useAttachment(room, message.id, false);
  const { busy, download } = useDownload(room, message.id, attachment.name);
  const button = "text-white/85 hover:bg-white/15 hover:text-white";
  return (
    <>
      <header className="flex items-center gap-2 p-3 pl-4">
        <div className="min-w-0 flex-1">
          <Dialog.Title className="truncate text-sm font-medium">
            <span dir="auto">{attachment.name}</span>
          </Dialog.Title>
          <p className="truncate text-xs text-white/70">{message.sender.name}</p>
        </div>
        <IconButton
          label={t("file.download", { name: attachment.name })}
          className={button}
          onClick={() => void download()}
          disabled={busy}
        >
          {busy ? <Dots /> : <Download />}
        </IconButton>
        <IconButton label={t("close")} className={button} onClick={onClose}>
          <X />
        </IconButton>
      </header>
      <div className="flex min-h-0 flex-1 items-center justify-center p-3 pb-8 sm:p-8" onClick={onClose}>
        {failure !== null ? (
          <div className="flex flex-col items-center gap-3 text-sm" onClick={(event) => event.stopPropagation()}>
            <CircleAlert className="size-6" aria-hidden />
            {failure}
            <Button onClick={retry}>{t("retry")}</Button>
          </div>
        ) : url === null ? (
          <span role="status" aria-label={t("file.downloading", { name: attachment.name })}>
            <Dots />
          </span>
        ) : (
          <img
            src={url}
            alt={attachment.name}
            className="animate-appear max-h-full max-w-full rounded-lg object-contain"
            onClick={(event) => event.stopPropagation()}
          />
        )}
      </div>
    </>
  );
}
