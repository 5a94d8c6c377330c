import { clsx } from "clsx";
import { Ban, CircleHelp, Copy, CornerUpLeft, EllipsisVertical, LockKeyhole, Reply, ShieldAlert } from "lucide-react";
import { memo, type ReactNode } from "react";
import { formatFull, formatTime, t, useLanguage } from "../../i18n";
import type { Failure, Message, QuotedMessage, RoomModel } from "../../stores/model";
import { Avatar, Skeleton } from "../../ui/core";
import { copyText } from "../../ui/copy";
import { IconButton } from "../../ui/icon";
import { isOnlyEmoji, Linked } from "../../ui/links";
import { Menu, type MenuEntry } from "../../ui/overlay";
import { Ticks } from "../../ui/ticks";
import { FileCard, Picture } from "./Attachments";

export interface MessageActions {
  reply(message: Message): void;
  openImage(message: Message): void;
  jumpTo(messageId: string): void;
}

interface Props {
  room: RoomModel;
  message: Message;
  /** Its place among messages of the same person that follow one another. */
  first: boolean;
  last: boolean;
  /** Names and pictures: not between two people. */
  withSender: boolean;
  actions: MessageActions;
}

/** One message with its bubble, its state and, while one points at it or focuses it, what can be done with it. */
export const MessageRow = memo(function MessageRow({ room, message, first, last, withSender, actions }: Props) {
  useLanguage();
  const { own, body } = message;
  const failed = message.delivery === "failed";
  return (
    <article
      tabIndex={-1}
      data-message={message.id}
      data-own={own}
      aria-label={t("timeline.by", { name: own ? t("you") : message.sender.name, time: formatFull(message.at) })}
      className={clsx(
        "group/message flex items-end gap-2 px-3 outline-none sm:px-5",
        first ? "pt-2.5" : "pt-0.5",
        own && "flex-row-reverse",
      )}
    >
      {withSender && !own ? (
        <span className="w-8 shrink-0">
          {last ? <Avatar name={message.sender.name} seed={message.sender.userId} size={32} /> : null}
        </span>
      ) : null}
      <div className={clsx("flex max-w-[min(36rem,82%)] min-w-0 flex-col", own ? "items-end" : "items-start")}>
        {withSender && !own && first ? (
          <span className="mb-0.5 max-w-full truncate px-3 text-[13px] font-semibold text-ink-2" dir="auto">
            {message.sender.name}
          </span>
        ) : null}
        <div
          className={clsx(
            "relative max-w-full min-w-0 group-focus-visible/message:ring-2 group-focus-visible/message:ring-accent-ink",
            shape(message, first, last),
            isBare(message) ? "" : own ? "bg-bubble-own text-on-accent" : "bg-bubble text-ink",
          )}
        >
          {message.quoted !== null ? <Quoted quoted={message.quoted} own={own} onJump={actions.jumpTo} /> : null}
          <Content room={room} message={message} actions={actions} />
          <Meta message={message} over={body.kind === "image"} />
        </div>
        {message.warning !== null ? <Warning failure={message.warning} /> : null}
        {failed ? <NotSent room={room} message={message} /> : null}
      </div>
      <Toolbar message={message} actions={actions} />
    </article>
  );
});

/** Emoji alone stand without a bubble. */
function isBare({ body, quoted }: Message): boolean {
  return body.kind === "text" && quoted === null && isOnlyEmoji(body.text);
}

function shape(message: Message, first: boolean, last: boolean): string {
  if (isBare(message)) return "pb-4";
  const padding = message.body.kind === "image" ? "p-[3px]" : "px-3 py-[7px]";
  const corners = message.own
    ? clsx(
        "rounded-l-[18px]",
        first ? "rounded-tr-[18px]" : "rounded-tr-md",
        last ? "rounded-br-[18px]" : "rounded-br-md",
      )
    : clsx(
        "rounded-r-[18px]",
        first ? "rounded-tl-[18px]" : "rounded-tl-md",
        last ? "rounded-bl-[18px]" : "rounded-bl-md",
      );
  return clsx(padding, corners);
}

function Content({ room, message, actions }: { room: RoomModel; message: Message; actions: MessageActions }) {
  const { body, own } = message;
  switch (body.kind) {
    case "text":
      if (isBare(message)) return <p className="px-1 text-[40px] leading-tight">{body.text}</p>;
      return (
        <p
          className={clsx(
            "text-[15px] leading-[1.4] wrap-anywhere whitespace-pre-wrap",
            // Marks heaped upon a letter stay within the bubble.
            "overflow-clip [overflow-clip-margin:6px]",
            body.emote && "italic",
          )}
          dir="auto"
        >
          {body.emote ? `${message.sender.name} ` : ""}
          <Linked text={body.text} className={clsx("underline underline-offset-2", !own && "text-accent-ink")} />
          <Spacer message={message} />
        </p>
      );
    case "image":
      return (
        <Picture room={room} message={message} attachment={body.attachment} onOpen={() => actions.openImage(message)} />
      );
    case "file":
      return (
        <div className="pb-4">
          <FileCard room={room} message={message} attachment={body.attachment} />
        </div>
      );
    case "waiting":
      return (
        <div role="status" aria-label={t("timeline.waiting")} className="w-44 pb-4">
          <Skeleton className="my-1 h-3.5 w-full" />
        </div>
      );
    case "removed":
      return <Aside icon={<Ban />} text={t("timeline.removed")} message={message} />;
    case "unsupported":
      return <Aside icon={<CircleHelp />} text={t("timeline.unsupported")} message={message} />;
    case "unreadable":
      return (
        <div data-failure={body.failure} className="flex gap-2.5 pb-4">
          <LockKeyhole
            className={clsx("mt-0.5 size-4 shrink-0", own ? "text-on-accent-2" : "text-ink-3")}
            aria-hidden
          />
          <p className="text-sm leading-snug">
            {t(`failure.${body.failure}`)}
            <span className={clsx("mt-0.5 block text-[13px]", own ? "text-on-accent-2" : "text-ink-2")}>
              {t(`failure.${body.failure}_action`)}
            </span>
          </p>
        </div>
      );
  }
}

function Aside({ icon, text, message }: { icon: ReactNode; text: string; message: Message }) {
  return (
    <p
      className={clsx(
        "flex items-center gap-2 text-sm italic [&_svg]:size-4 [&_svg]:shrink-0",
        message.own ? "text-on-accent-2" : "text-ink-2",
      )}
    >
      {icon}
      <span>
        {text}
        <Spacer message={message} />
      </span>
    </p>
  );
}

/** Keeps the end of the last line free for the time, which stands in the corner of the bubble. */
function Spacer({ message }: { message: Message }) {
  return (
    <span aria-hidden className="invisible inline-block h-0 pl-2.5 text-[11px] tabular-nums">
      {message.edited ? `${t("timeline.edited")} ` : ""}
      {formatTime(message.at)}
      {message.delivery !== null ? <span className="inline-block w-7" /> : null}
    </span>
  );
}

function Meta({ message, over }: { message: Message; over: boolean }) {
  const onAccent = message.own && !isBare(message);
  return (
    <span
      className={clsx(
        "pointer-events-none absolute flex items-center gap-1 text-[11px] leading-none tabular-nums",
        over
          ? "right-2.5 bottom-2.5 rounded-full bg-black/60 px-2 py-1 text-white [--tick-gap:#222] [&_[data-delivery]]:text-white"
          : isBare(message)
            ? "right-1 bottom-0 text-ink-3 [--tick-gap:var(--color-canvas)]"
            : clsx(
                "right-2.5 bottom-[7px]",
                onAccent ? "text-on-accent-2 [--tick-gap:var(--color-bubble-own)]" : "text-ink-2",
              ),
      )}
    >
      {message.edited ? <span>{t("timeline.edited")}</span> : null}
      <time dateTime={new Date(message.at).toISOString()}>{formatTime(message.at)}</time>
      {message.delivery !== null && message.delivery !== "failed" ? (
        <span className="pointer-events-auto flex">
          <Ticks state={message.delivery} onAccent={onAccent} />
        </span>
      ) : null}
    </span>
  );
}

function Quoted({ quoted, own, onJump }: { quoted: QuotedMessage; own: boolean; onJump(id: string): void }) {
  return (
    <button
      type="button"
      onClick={() => onJump(quoted.id)}
      title={t("timeline.quotedJump")}
      className={clsx(
        "mt-0.5 mb-1.5 block w-full min-w-32 overflow-hidden rounded-lg border-l-[3px] px-2.5 py-1.5 text-left text-[13px]",
        own ? "border-on-accent-2 bg-black/15" : "border-accent bg-raised",
      )}
    >
      <span className={clsx("block truncate font-semibold", own ? "text-on-accent" : "text-accent-ink")} dir="auto">
        {quoted.sender.name}
      </span>
      <span className={clsx("line-clamp-2 wrap-anywhere", own ? "text-on-accent-2" : "text-ink-2")} dir="auto">
        {quoted.body ?? t("timeline.quotedUnknown")}
      </span>
    </button>
  );
}

function Warning({ failure }: { failure: Failure }) {
  return (
    <p data-failure={failure} className="mt-1 flex items-center gap-1.5 px-2 text-xs text-warn">
      <ShieldAlert className="size-3.5 shrink-0" aria-hidden />
      {t(`failure.${failure}`)} {t(`failure.${failure}_action`)}
    </p>
  );
}

function NotSent({ room, message }: { room: RoomModel; message: Message }) {
  const action = "touch rounded font-semibold underline-offset-2 hover:underline";
  return (
    <p
      role="alert"
      className="mt-1 flex items-center gap-2 px-1 text-xs text-bad pointer-coarse:gap-4 pointer-coarse:py-2"
    >
      <Ticks state="failed" />
      {t("timeline.failed")}
      <button type="button" className={action} onClick={() => room.retry(message.id)}>
        {t("retry")}
      </button>
      <button type="button" className={action} onClick={() => room.discard(message.id)}>
        {t("timeline.discard")}
      </button>
    </p>
  );
}

function Toolbar({ message, actions }: { message: Message; actions: MessageActions }) {
  const text = message.body.kind === "text" ? message.body.text : null;
  const readable = text !== null || message.body.kind === "image" || message.body.kind === "file";
  if (!readable || message.delivery === "sending" || message.delivery === "failed") return null;
  const entries: MenuEntry[] = [
    { label: t("timeline.reply"), icon: <Reply />, onSelect: () => actions.reply(message) },
  ];
  if (text !== null) {
    entries.push({
      label: t("timeline.copyText"),
      icon: <Copy />,
      onSelect: () => void copyText(text),
    });
  }
  return (
    <span className="flex shrink-0 self-center opacity-0 transition-opacity group-focus-within/message:opacity-100 group-hover/message:opacity-100 has-[[data-state=open]]:opacity-100">
      <IconButton
        label={t("timeline.reply")}
        tooltip={false}
        small
        className="max-sm:hidden"
        onClick={() => actions.reply(message)}
      >
        <CornerUpLeft />
      </IconButton>
      <Menu
        align={message.own ? "end" : "start"}
        trigger={
          <IconButton label={t("timeline.actions")} tooltip={false} small>
            <EllipsisVertical />
          </IconButton>
        }
        entries={entries}
      />
    </span>
  );
}
