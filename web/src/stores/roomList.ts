/** One line of the list of conversations. */
import {
  EventTimeline,
  KnownMembership,
  NotificationCountType,
  type MatrixClient,
  type MatrixEvent,
  type Room,
} from "matrix-js-sdk";
import type { Session } from "../sdk";
import { bodyOf, isMessage, personOf, shortName } from "./events";
import type { Person, Preview, RoomSummary } from "./model";

export function directRooms(client: MatrixClient): Set<string> {
  const content: unknown = client.getAccountData("m.direct" as never)?.getContent();
  const ids = new Set<string>();
  if (typeof content !== "object" || content === null) return ids;
  for (const list of Object.values(content)) {
    if (Array.isArray(list)) for (const id of list) if (typeof id === "string") ids.add(id);
  }
  return ids;
}

interface Around {
  direct: Set<string>;
  typing: ReadonlySet<string> | undefined;
  draft: boolean;
}

export function summarize(session: Session, room: Room, around: Around): RoomSummary | null {
  const membership = membershipOf(room);
  if (membership === null) return null;
  const direct = around.direct.has(room.roomId) || room.getDMInviter() !== undefined;
  const last = membership === "joined" ? lastMessage(room) : undefined;
  return {
    id: room.roomId,
    name: nameOf(room),
    direct,
    sealed: session.isSealed(room.roomId),
    membership,
    invitedBy: membership === "invited" ? inviter(room) : null,
    unread: membership === "joined" ? unread(room) : 0,
    mentions: membership === "joined" ? room.getUnreadNotificationCount(NotificationCountType.Highlight) : 0,
    at: last?.getTs() ?? lastHappening(room),
    preview: last === undefined ? null : previewOf(last, room, session, direct),
    typing: around.typing !== undefined && around.typing.size > 0,
    draft: around.draft,
    members: room.getJoinedMemberCount(),
  };
}

function membershipOf(room: Room): RoomSummary["membership"] | null {
  switch (room.getMyMembership()) {
    case KnownMembership.Join:
      return "joined";
    case KnownMembership.Invite:
      return "invited";
    case KnownMembership.Leave:
    case KnownMembership.Ban:
      return "left";
    default:
      return null;
  }
}

function nameOf(room: Room): string {
  const name = room.name.trim();
  return name === "" ? room.roomId : shortName(name, room.myUserId).slice(0, 200);
}

function inviter(room: Room): Person | null {
  const userId = room.getMember(room.myUserId)?.events.member?.getSender();
  return userId === undefined ? null : personOf(room, userId);
}

function lastMessage(room: Room): MatrixEvent | undefined {
  const pending = room.getPendingEvents().findLast(isMessage);
  return pending ?? room.getLiveTimeline().getEvents().findLast(isMessage);
}

/** For a room without messages: when one was invited, or when the newest event came. */
function lastHappening(room: Room): number {
  const member = room
    .getLiveTimeline()
    .getState(EventTimeline.FORWARDS)
    ?.getStateEvents("m.room.member", room.myUserId)
    ?.getTs();
  const newest = room.getLiveTimeline().getEvents().at(-1)?.getTs();
  return newest ?? member ?? 0;
}

/**
 * Messages of others since the last one read. The server's count is asked only where the place of reading is not at hand:
 * it comes with the next sync, and would stand there too long after one has read.
 */
function unread(room: Room): number {
  const events = room.getLiveTimeline().getEvents();
  const readUpTo = room.getEventReadUpTo(room.myUserId);
  let count = 0;
  for (let i = events.length - 1; i >= 0; i--) {
    const event = events[i];
    if (event === undefined) continue;
    if (event.getId() === readUpTo || (event.getSender() === room.myUserId && isMessage(event))) return count;
    if (isMessage(event)) count++;
  }
  return room.getUnreadNotificationCount(NotificationCountType.Total);
}

function previewOf(event: MatrixEvent, room: Room, session: Session, direct: boolean): Preview {
  const sender = event.getSender() ?? "";
  const own = sender === room.myUserId;
  const body = bodyOf(event, session);
  const content: Preview["content"] =
    body.kind === "text"
      ? { kind: "text", body: body.text.slice(0, 300) }
      : body.kind === "image"
        ? { kind: "image" }
        : body.kind === "file"
          ? { kind: "file", name: body.attachment.name }
          : { kind: "unreadable" };
  return {
    sender: own || direct ? null : (personOf(room, sender).name.split(" ")[0] ?? null),
    own,
    content,
    delivery: own ? session.delivery(event) : null,
  };
}

/** Invitations first; then by what happened last. */
export function order(a: RoomSummary, b: RoomSummary): number {
  const invited = Number(b.membership === "invited") - Number(a.membership === "invited");
  return invited !== 0 ? invited : b.at - a.at || a.name.localeCompare(b.name);
}
