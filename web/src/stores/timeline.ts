/** The rows of one conversation: messages, what happened to the room, days, and where reading ended. */
import { Direction, type MatrixEvent, type Room } from "matrix-js-sdk";
import { isMessage, type Judge, messageOf, noticeOf } from "./events";
import type { Notice, TimelineItem } from "./model";

interface Options {
  room: Room;
  judge: Judge;
  sealed: boolean;
  direct: boolean;
  /** The last message that was read when the conversation was opened. */
  readUpTo: string | null;
}

/** How rows of before are kept, so that only those that changed are drawn again. */
export type Cache = Map<string, TimelineItem>;

export function hasMore(room: Room): boolean {
  return room.getLiveTimeline().getPaginationToken(Direction.Backward) !== null;
}

export function buildItems({ room, judge, sealed, direct, readUpTo }: Options, cache: Cache): TimelineItem[] {
  const events = [...room.getLiveTimeline().getEvents(), ...room.getPendingEvents()];
  const atStart = !hasMore(room);
  const sealedAtStart =
    sealed && atStart && events.slice(0, 20).some((event) => event.getType() === "m.room.encryption");
  const items: TimelineItem[] = atStart ? [{ kind: "start", key: "start", sealed, direct, name: room.name }] : [];
  const line = lineAfter(events, readUpTo, room.myUserId);
  let day = "";
  for (const event of events) {
    const item = itemOf(event, room, judge, sealedAtStart);
    if (item === null) continue;
    const date = new Date(item.at);
    const today = `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`;
    if (today !== day) items.push({ kind: "day", key: `day ${today}`, at: item.at });
    day = today;
    if (event.getId() === line) items.push({ kind: "unread", key: "unread" });
    if (item.kind !== "notice" || !absorb(items[items.length - 1], item)) items.push(item);
  }
  return settle(withoutRepeatedDays(items), cache);
}

function itemOf(event: MatrixEvent, room: Room, judge: Judge, sealedAtStart: boolean) {
  if (event.isState()) return noticeOf(event, room, sealedAtStart);
  return isMessage(event) ? messageOf(event, room, judge) : null;
}

/** The first message of others after the one that was read last. */
function lineAfter(events: MatrixEvent[], readUpTo: string | null, me: string): string | null {
  if (readUpTo === null) return null;
  const at = events.findIndex((event) => event.getId() === readUpTo);
  if (at === -1) return null;
  const rest = events.slice(at + 1);
  const first = rest.find((event) => isMessage(event) && event.getSender() !== me);
  return first?.getId() ?? null;
}

/** Twenty people who join make one line. */
function absorb(last: TimelineItem | undefined, notice: Notice): boolean {
  if (last?.kind !== "notice" || last.happening.what !== notice.happening.what) return false;
  if (notice.happening.what !== "joined" && notice.happening.what !== "left") return false;
  const [actor] = notice.actors;
  if (actor !== undefined && !last.actors.includes(actor)) last.actors.push(actor);
  return true;
}

/** Events are in the order of the room, not of clocks: a day that comes back later needs another key. */
function withoutRepeatedDays(items: TimelineItem[]): TimelineItem[] {
  const seen = new Set<string>();
  return items.map((item) => {
    let key = item.key;
    while (seen.has(key)) key += "'";
    seen.add(key);
    return key === item.key ? item : { ...item, key };
  });
}

/** Gives rows that are as they were the object that they were. */
function settle(items: TimelineItem[], cache: Cache): TimelineItem[] {
  const settled = items.map((item) => {
    const before = cache.get(item.key);
    return before !== undefined && JSON.stringify(before) === JSON.stringify(item) ? before : item;
  });
  cache.clear();
  for (const item of settled) cache.set(item.key, item);
  return settled;
}

/** Where the list begins, so that rows put in front of it do not move those in sight. */
export function shiftIndex(before: { items: TimelineItem[]; firstIndex: number }, items: TimelineItem[]): number {
  const anchor = before.items.find((item) => item.kind === "message");
  if (anchor === undefined) return before.firstIndex;
  const was = before.items.indexOf(anchor);
  const is = items.findIndex((item) => item.key === anchor.key);
  return is === -1 ? before.firstIndex : before.firstIndex - (is - was);
}
