import { ChevronDown } from "lucide-react";
import { type KeyboardEvent, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { Virtuoso, type VirtuosoHandle } from "react-virtuoso";
import { t, useLanguage } from "../../i18n";
import { useValue } from "../../stores/context";
import { plainOf } from "../../stores/events";
import type { Message, RoomModel, TimelineItem } from "../../stores/model";
import { Button, Callout, Skeleton } from "../../ui/core";
import { Boundary } from "../../ui/Boundary";
import { Lightbox } from "./Attachments";
import { DayLine, NoticeLine, StartLine, UnreadLine } from "./Lines";
import { type MessageActions, MessageRow } from "./MessageRow";
import { nearEnd, type StayAtEnd, stayAtEnd } from "./stayAtEnd";

/** Messages of one person within this time stand together. */
const together = 5 * 60_000;

function joins(a: TimelineItem | undefined, b: TimelineItem | undefined): boolean {
  return (
    a?.kind === "message" &&
    b?.kind === "message" &&
    a.sender.userId === b.sender.userId &&
    Math.abs(b.at - a.at) < together
  );
}

interface Props {
  room: RoomModel;
  direct: boolean;
  onReply(message: Message): void;
  /** Escape, or an arrow beyond the newest message. */
  onLeave(): void;
}

export function Timeline({ room, direct, onReply, onLeave }: Props) {
  const timeline = useValue(room.timeline);
  const { items, firstIndex } = timeline;
  const list = useRef<VirtuosoHandle>(null);
  const [atBottom, setAtBottom] = useState(true);
  const [seen, setSeen] = useState<string | null>(null);
  const [image, setImage] = useState<Message | null>(null);
  const latest = useRef({ items, firstIndex });
  useLayoutEffect(() => {
    latest.current = { items, firstIndex };
  });

  const newest = items[items.length - 1];
  const start = items.findIndex((item) => item.kind === "unread");
  const { end, attach } = useStayAtEnd(start <= 0);
  useFollowOwn(newest, list);
  useReading(room, atBottom, newest?.key);

  const jumpTo = useCallback(
    (id: string) => {
      const index = latest.current.items.findIndex((item) => item.kind === "message" && item.id === id);
      if (index === -1) return;
      end.current?.release();
      list.current?.scrollToIndex({ index, align: "center", behavior: "smooth" });
    },
    [end],
  );
  const actions = useMemo<MessageActions>(() => ({ reply: onReply, openImage: setImage, jumpTo }), [onReply, jumpTo]);

  const pageBack = useCallback(() => void room.pageBack(), [room]);
  const context = useMemo<Above>(
    () => ({ loading: timeline.loading, failed: timeline.failed, retry: pageBack }),
    [timeline.loading, timeline.failed, pageBack],
  );
  // A conversation shorter than the window has no top to scroll to.
  useEffect(() => {
    if (items.length < 25 && timeline.more && !timeline.loading && !timeline.failed) pageBack();
  }, [items.length, timeline.more, timeline.loading, timeline.failed, pageBack]);

  const below = atBottom ? 0 : countAfter(items, seen);
  if (items.length === 0) return <Loading />;
  return (
    <section
      aria-label={t("timeline.label")}
      className="relative min-h-0 flex-1"
      onKeyDown={(event) => move(event, onLeave, items, actions)}
    >
      <Virtuoso
        ref={list}
        scrollerRef={attach}
        className="h-full overscroll-contain"
        data={items}
        context={context}
        firstItemIndex={firstIndex}
        initialTopMostItemIndex={start > 0 ? { index: start, align: "start" } : { index: "LAST", align: "end" }}
        alignToBottom
        tabIndex={0}
        increaseViewportBy={{ top: 800, bottom: 400 }}
        atBottomThreshold={nearEnd}
        atBottomStateChange={(bottom) => {
          if (bottom) end.current?.hold();
          setAtBottom(bottom);
          setSeen(latest.current.items[latest.current.items.length - 1]?.key ?? null);
        }}
        followOutput={(isAtBottom) => (isAtBottom || end.current?.held() === true ? "auto" : false)}
        startReached={() => {
          if (timeline.more && !timeline.failed) pageBack();
        }}
        components={parts}
        computeItemKey={(_, item) => item.key}
        itemContent={(index, item) => (
          <Boundary fallback={<Broken />}>
            <Item
              room={room}
              item={item}
              before={items[index - firstIndex - 1]}
              after={items[index - firstIndex + 1]}
              direct={direct}
              actions={actions}
            />
          </Boundary>
        )}
      />
      {atBottom ? null : (
        <button
          type="button"
          aria-label={below > 0 ? t("timeline.newBelow", { count: below }) : t("timeline.toNewest")}
          onClick={() => list.current?.scrollToIndex({ index: "LAST", align: "end", behavior: "smooth" })}
          className="animate-rise absolute right-4 bottom-3 flex h-10 min-w-10 pointer-coarse:h-11 pointer-coarse:min-w-11 items-center justify-center gap-1 rounded-full border border-line bg-raised px-2.5 text-[13px] font-semibold shadow-pop hover:bg-hover"
        >
          {below > 0 ? <span className="tabular-nums">{below}</span> : null}
          <ChevronDown className="size-5 text-ink-2" />
        </button>
      )}
      <Announced newest={newest} />
      {image !== null ? <Lightbox room={room} message={image} onClose={() => setImage(null)} /> : null}
    </section>
  );
}

/** Reads out what others write while the conversation is open, but not what was there when it was opened. */
function Announced({ newest }: { newest: TimelineItem | undefined }) {
  const [opened] = useState(newest?.key);
  const text =
    newest?.kind === "message" && !newest.own && newest.key !== opened
      ? t("timeline.announced", { name: newest.sender.name, text: plainOf(newest.body) ?? "" })
      : "";
  return (
    <p role="status" className="sr-only">
      {text}
    </p>
  );
}

interface ItemProps {
  room: RoomModel;
  item: TimelineItem;
  before: TimelineItem | undefined;
  after: TimelineItem | undefined;
  direct: boolean;
  actions: MessageActions;
}

export function Item({ room, item, before, after, direct, actions }: ItemProps) {
  switch (item.kind) {
    case "message":
      return (
        <MessageRow
          room={room}
          message={item}
          first={!joins(before, item)}
          last={!joins(item, after)}
          withSender={!direct}
          actions={actions}
        />
      );
    case "notice":
      return <NoticeLine notice={item} />;
    case "day":
      return <DayLine item={item} />;
    case "unread":
      return <UnreadLine />;
    case "start":
      return <StartLine item={item} />;
  }
}

interface Above {
  loading: boolean;
  failed: boolean;
  retry(): void;
}

/** What stands above the oldest message and below the newest one. Defined once: a new component would lose the place. */
const parts = {
  Header({ context }: { context?: Above }) {
    useLanguage();
    if (context?.failed === true) {
      return (
        <div className="mx-auto max-w-md p-4">
          <Callout
            tone="bad"
            role="alert"
            action={
              <Button size="small" onClick={context.retry}>
                {t("retry")}
              </Button>
            }
          >
            {t("timeline.loadFailed")}
          </Callout>
        </div>
      );
    }
    return context?.loading === true ? <Ghosts count={3} /> : <div className="h-4" />;
  },
  Footer() {
    return <div className="h-3" />;
  },
};

function Ghosts({ count }: { count: number }) {
  return (
    <div role="status" aria-label={t("boot.syncing")} className="flex flex-col gap-3 px-5 py-3">
      {Array.from({ length: count }, (_, i) => (
        <Skeleton
          key={i}
          className={
            ["h-9 w-56 rounded-[18px]!", "h-14 w-72 self-end rounded-[18px]!", "h-9 w-80 max-w-full rounded-[18px]!"][
              i % 3
            ] ?? ""
          }
        />
      ))}
    </div>
  );
}

function Loading() {
  return (
    <div className="flex min-h-0 flex-1 flex-col justify-end overflow-hidden">
      <Ghosts count={8} />
    </div>
  );
}

function Broken() {
  return <p className="px-8 py-1 text-center text-[13px] text-ink-2">{t("timeline.unsupported")}</p>;
}

function countAfter(items: TimelineItem[], key: string | null): number {
  let count = 0;
  for (let i = items.length - 1; i >= 0; i--) {
    const item = items[i];
    if (item === undefined || item.key === key) break;
    if (item.kind === "message" && !item.own) count++;
  }
  return count;
}

/** What one has written oneself is always in sight. */
function useFollowOwn(newest: TimelineItem | undefined, list: { current: VirtuosoHandle | null }): void {
  const key = newest?.kind === "message" && newest.own && newest.delivery === "sending" ? newest.key : null;
  useEffect(() => {
    if (key !== null) list.current?.scrollToIndex({ index: "LAST", align: "end" });
  }, [key, list]);
}

/** The newest message stays in sight of whoever looks at it; `attach` is given the element that scrolls. */
function useStayAtEnd(atEnd: boolean) {
  const end = useRef<StayAtEnd | null>(null);
  const from = useRef(atEnd);
  const attach = useCallback((scroller: HTMLElement | Window | null) => {
    end.current?.stop();
    end.current = scroller instanceof HTMLElement ? stayAtEnd(scroller, from.current) : null;
  }, []);
  useEffect(() => () => end.current?.stop(), []);
  return { end, attach };
}

/** A message counts as read once it is in sight in a window that has the person's attention. */
function useReading(room: RoomModel, atBottom: boolean, newest: string | undefined): void {
  useEffect(() => {
    function read(): void {
      if (atBottom && newest !== undefined && document.visibilityState === "visible" && document.hasFocus())
        room.markRead();
    }
    read();
    window.addEventListener("focus", read);
    document.addEventListener("visibilitychange", read);
    return () => {
      window.removeEventListener("focus", read);
      document.removeEventListener("visibilitychange", read);
    };
  }, [room, atBottom, newest]);
}

/** Arrows go from message to message, r replies, Escape goes back to writing. */
function move(
  event: KeyboardEvent<HTMLElement>,
  onLeave: () => void,
  items: TimelineItem[],
  actions: MessageActions,
): void {
  const here = document.activeElement?.closest<HTMLElement>("[data-message]") ?? null;
  if (event.key === "Escape" && here !== null) {
    event.stopPropagation();
    onLeave();
    return;
  }
  if (here === null || document.activeElement !== here) return;
  if (event.key === "r" && !event.ctrlKey && !event.metaKey) {
    const message = items.find((item) => item.kind === "message" && item.id === here.dataset["message"]);
    if (message?.kind !== "message") return;
    event.preventDefault();
    actions.reply(message);
    return;
  }
  if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
  event.preventDefault();
  const all = [...event.currentTarget.querySelectorAll<HTMLElement>("[data-message]")];
  const next = all[all.indexOf(here) + (event.key === "ArrowUp" ? -1 : 1)];
  if (next !== undefined) {
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  } else if (event.key === "ArrowDown") onLeave();
}
