import { clsx } from "clsx";
import { CircleAlert, CornerUpLeft, Paperclip, SendHorizontal, X } from "lucide-react";
import {
  type ClipboardEvent,
  type KeyboardEvent,
  type RefObject,
  useEffect,
  useId,
  useLayoutEffect,
  useRef,
} from "react";
import { formatPercent, t } from "../../i18n";
import { useValue } from "../../stores/context";
import type { RoomModel, Upload } from "../../stores/model";
import { IconButton } from "../../ui/icon";

interface Props {
  room: RoomModel;
  name: string;
  input: RefObject<HTMLTextAreaElement | null>;
  /** The arrow up in an empty input leads into the messages. */
  onUp(): void;
}

const typingEvery = 4_000;

export function Composer({ room, name, input, onUp }: Props) {
  const draft = useValue(room.draft);
  const uploads = useValue(room.uploads);
  const maySend = useValue(room.maySend);
  const picker = useRef<HTMLInputElement>(null);
  const hint = useId();
  const typing = useTyping(room);
  const { text, replyTo } = draft;

  // The height follows the text; the browser's own `field-sizing` is not everywhere yet.
  useLayoutEffect(() => {
    const area = input.current;
    if (area === null) return;
    area.style.height = "0px";
    area.style.height = `${Math.min(area.scrollHeight, 200)}px`;
  }, [text, input]);

  // Where there is a keyboard, one opens a conversation to write in it.
  useEffect(() => {
    if (matchMedia("(hover: hover) and (pointer: fine)").matches) input.current?.focus({ preventScroll: true });
  }, [room, input]);

  function send(): void {
    const body = text.trim();
    if (body === "") return;
    room.sendText(body, replyTo?.id ?? null);
    room.setDraft({ text: "", replyTo: null });
    typing(false);
    input.current?.focus();
  }

  function key(event: KeyboardEvent<HTMLTextAreaElement>): void {
    // Enter that ends the composition of a character must not send.
    if (event.nativeEvent.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape" && replyTo !== null) {
      event.stopPropagation();
      room.setDraft({ text, replyTo: null });
    } else if (event.key === "ArrowUp" && text === "") {
      event.preventDefault();
      onUp();
    }
  }

  function paste(event: ClipboardEvent): void {
    const files = [...event.clipboardData.files];
    if (files.length === 0) return;
    event.preventDefault();
    for (const file of files) room.sendFile(file);
  }

  if (!maySend) {
    return <p className="border-t border-line px-5 py-4 text-center text-sm text-ink-2">{t("composer.maySend")}</p>;
  }
  return (
    <div className="px-3 pt-1 pb-[max(0.75rem,env(safe-area-inset-bottom))] sm:px-5">
      {uploads.length > 0 ? <Uploads room={room} uploads={uploads} /> : null}
      <form
        className="rounded-2xl border border-line-strong/45 bg-raised transition-shadow focus-within:border-accent-ink"
        onSubmit={(event) => {
          event.preventDefault();
          send();
        }}
      >
        {replyTo !== null ? (
          <div className="flex items-center gap-2.5 border-b border-line py-1.5 pr-1.5 pl-4 text-[13px]">
            <CornerUpLeft className="size-4 shrink-0 text-accent-ink" aria-hidden />
            <span className="min-w-0 flex-1 truncate text-ink-2">
              <span className="font-medium text-ink">{t("composer.replyingTo", { name: replyTo.sender.name })}</span>
              {replyTo.body !== null ? `  ${replyTo.body}` : ""}
            </span>
            <IconButton label={t("composer.stopReply")} small onClick={() => room.setDraft({ text, replyTo: null })}>
              <X />
            </IconButton>
          </div>
        ) : null}
        <div className="flex items-end gap-1 p-1.5">
          <IconButton
            label={t("composer.attach")}
            className="pointer-coarse:size-11"
            onClick={() => picker.current?.click()}
          >
            <Paperclip />
          </IconButton>
          <textarea
            ref={input}
            rows={1}
            value={text}
            aria-label={t("composer.label", { name })}
            aria-describedby={hint}
            placeholder={t("composer.placeholder", { name })}
            enterKeyHint="send"
            dir="auto"
            onChange={(event) => {
              room.setDraft({ text: event.target.value, replyTo });
              typing(event.target.value !== "");
            }}
            onKeyDown={key}
            onPaste={paste}
            onBlur={() => typing(false)}
            className="max-h-50 min-h-9 min-w-0 flex-1 resize-none bg-transparent px-1 py-[7px] pointer-coarse:py-[11px] text-[15px] leading-[22px] outline-none placeholder:truncate placeholder:text-ink-3"
          />
          <button
            type="submit"
            aria-label={t("composer.send")}
            disabled={text.trim() === ""}
            className={clsx(
              "touch flex size-9 shrink-0 pointer-coarse:size-11 items-center justify-center rounded-full transition-colors",
              text.trim() === "" ? "text-ink-3" : "bg-accent text-on-accent hover:bg-accent-hover",
            )}
          >
            <SendHorizontal className="size-[18px]" />
          </button>
        </div>
        <p id={hint} className="sr-only">
          {t("composer.hint")}
        </p>
        <input
          ref={picker}
          type="file"
          multiple
          hidden
          data-testid="file-input"
          onChange={(event) => {
            for (const file of event.target.files ?? []) room.sendFile(file);
            event.target.value = "";
          }}
        />
      </form>
    </div>
  );
}

function Uploads({ room, uploads }: { room: RoomModel; uploads: Upload[] }) {
  return (
    <ul className="mb-2 flex flex-col gap-1.5">
      {uploads.map((upload) => (
        <li key={upload.id} className="rounded-xl bg-sunken py-1.5 pr-1.5 pl-3.5">
          <div className="flex items-center gap-2 text-[13px]">
            {upload.failure !== null ? <CircleAlert className="size-4 shrink-0 text-bad" aria-hidden /> : null}
            {upload.failure !== null ? (
              <span role="alert" className="min-w-0 flex-1 py-1 leading-snug text-bad">
                <span className="line-clamp-2 wrap-anywhere" dir="auto">
                  {t("composer.uploadFailed", { name: upload.name })}
                </span>
                <span className="block text-ink-2">{upload.failure.reason}</span>
              </span>
            ) : (
              <span className="min-w-0 flex-1 truncate text-left" dir="auto">
                {upload.name}
              </span>
            )}
            {upload.failure === null ? (
              <span className="text-ink-2 tabular-nums">{formatPercent(percent(upload))}</span>
            ) : upload.failure.again ? (
              <button
                type="button"
                className="touch rounded px-1 font-semibold text-accent-ink hover:underline"
                onClick={() => room.retryUpload(upload.id)}
              >
                {t("retry")}
              </button>
            ) : null}
            <IconButton
              label={t("composer.cancelUpload", { name: upload.name })}
              tooltip={false}
              small
              onClick={() => room.cancelUpload(upload.id)}
            >
              <X />
            </IconButton>
          </div>
          {upload.failure !== null ? null : (
            <div
              role="progressbar"
              aria-label={upload.name}
              aria-valuenow={percent(upload)}
              aria-valuemin={0}
              aria-valuemax={100}
              className="mt-0.5 mr-2 mb-1 h-1 overflow-hidden rounded-full bg-line"
            >
              <div
                className="h-full rounded-full bg-accent transition-[width]"
                style={{ width: `${percent(upload)}%` }}
              />
            </div>
          )}
        </li>
      ))}
    </ul>
  );
}

function percent({ done, total }: Upload): number {
  return total <= 0 ? 0 : Math.min(100, Math.round((done / total) * 100));
}

/** Tells the others that one writes, every few seconds while one does. */
function useTyping(room: RoomModel): (on: boolean) => void {
  const last = useRef(0);
  useEffect(
    () => () => {
      if (last.current > 0) room.setTyping(false);
      last.current = 0;
    },
    [room],
  );
  return (on) => {
    const now = Date.now();
    if (on && now - last.current > typingEvery) {
      last.current = now;
      room.setTyping(true);
    } else if (!on && last.current > 0) {
      last.current = 0;
      room.setTyping(false);
    }
  };
}
