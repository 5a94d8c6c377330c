/** One open conversation, over the Matrix SDK's room. */
import { EventTimeline, KnownMembership, type MatrixEvent, type Room } from "matrix-js-sdk";
import type { Session } from "../sdk";
import type { BlobCache } from "./attachments";
import { personOf } from "./events";
import type { Draft, Member, Observable, Person, RoomModel, RoomSummary, Timeline, TimelineItem } from "./model";
import { type Cell, derived } from "./observable";
import { buildItems, hasMore, shiftIndex } from "./timeline";
import type { Uploads } from "./uploads";

interface Options {
  session: Session;
  roomId: string;
  summary: Observable<RoomSummary | null>;
  typing: Observable<ReadonlySet<string>>;
  draft: Cell<Draft>;
  uploads: Uploads;
  blobs: BlobCache;
}

/** A model that is told when something in its room has changed. */
export interface LiveRoom extends RoomModel {
  changed(): void;
  membersChanged(): void;
  /** Another one was opened: nothing more is told to this one. */
  close(): void;
}

const pageSize = 40;

export function openRoom(options: Options): LiveRoom {
  const { session, roomId, summary, draft, uploads, blobs } = options;
  const { client } = session;
  const me = session.credentials.userId;
  const find = (): Room | null => client.getRoom(roomId);
  const readUpTo = find()?.getEventReadUpTo(me) ?? null;
  const cache = new Map<string, TimelineItem>();
  let loading = false;
  let failed = false;
  let before: { items: TimelineItem[]; firstIndex: number } = { items: [], firstIndex: 1_000_000 };
  let readSent: string | null = null;
  let membersLoaded = false;

  const timeline = derived<Timeline>(() => {
    const room = find();
    if (room === null) return { items: [], firstIndex: before.firstIndex, loading, more: false, failed };
    const sealed = session.isSealed(roomId);
    const items = buildItems({ room, judge: session, sealed, direct: summary.get()?.direct === true, readUpTo }, cache);
    before = { items, firstIndex: shiftIndex(before, items) };
    return { ...before, loading, more: hasMore(room), failed };
  });

  const members = derived<Member[]>(() => {
    const room = find();
    return room === null ? [] : listMembers(room, me);
  });

  const typing = derived<Person[]>(() => {
    const room = find();
    return room === null ? [] : [...options.typing.get()].map((userId) => personOf(room, userId));
  });
  const untyped = options.typing.subscribe(() => typing.invalidate());

  const mayInvite = derived(() => find()?.canInvite(me) === true);
  const maySend = derived(() => find()?.maySendMessage() !== false);

  /** Who is in a room may be asked by its members only, so an invitation has to be accepted first. */
  function loadMembers(): void {
    const room = find();
    if (membersLoaded || room?.getMyMembership() !== KnownMembership.Join) return;
    membersLoaded = true;
    room.loadMembersIfNeeded().then(membersChanged, () => {
      membersLoaded = false; // the list shows those that are known; the next event of the room asks again
    });
  }

  function membersChanged(): void {
    members.invalidate();
    mayInvite.invalidate();
    maySend.invalidate();
  }

  loadMembers();

  function eventOf(id: string): MatrixEvent {
    const room = find();
    const event = room?.findEventById(id) ?? room?.getPendingEvents().find((pending) => pending.getId() === id);
    if (event === undefined) throw new Error("this message is no longer here");
    return event;
  }

  return {
    id: roomId,
    summary,
    timeline,
    members,
    typing,
    safety: session.roomSafety(roomId),
    draft,
    uploads: uploads.list,
    mayInvite,
    maySend,
    changed() {
      loadMembers();
      timeline.invalidate();
    },
    membersChanged,
    close: untyped,
    async pageBack() {
      const room = find();
      if (room === null || loading || !hasMore(room)) return;
      loading = true;
      failed = false;
      timeline.invalidate();
      try {
        await client.paginateEventTimeline(room.getLiveTimeline(), { backwards: true, limit: pageSize });
      } catch {
        failed = true; // shown above the oldest message, with a button to try again
      }
      loading = false;
      timeline.invalidate();
    },
    setDraft: (next) => draft.set(next),
    sendText(body, replyTo) {
      // What becomes of it is shown by the message itself, which offers to try again.
      void session.sendText(roomId, body, replyTo ?? undefined).catch(() => timeline.invalidate());
      timeline.invalidate();
    },
    sendFile: (file) => uploads.send(file),
    cancelUpload: (id) => uploads.cancel(id),
    retryUpload: (id) => uploads.retry(id),
    retry(id) {
      void session.resend(roomId, id).catch(() => timeline.invalidate());
      timeline.invalidate();
    },
    discard(id) {
      session.discard(roomId, id);
      timeline.invalidate();
    },
    markRead() {
      const newest = find()?.getLiveTimeline().getEvents().at(-1)?.getId();
      if (newest === undefined || newest === readSent || find()?.getEventReadUpTo(me) === newest) return;
      readSent = newest;
      void session.markRead(roomId, newest).catch(() => undefined); // of a mark that the server refuses nobody else needs to know
    },
    setTyping(on) {
      void session.typing(roomId, on).catch(() => undefined); // of no consequence
    },
    readAttachment: (id, { thumbnail, signal }) =>
      blobs.get(`${id} ${String(thumbnail)}`, () => session.readAttachment(eventOf(id), { thumbnail, signal })),
    async invite(userId) {
      await client.invite(roomId, userId);
    },
    async kick(userId) {
      await client.kick(roomId, userId);
    },
    acceptIdentity: (userId) => session.acceptIdentity(userId),
    async leave() {
      await client.leave(roomId);
    },
  };
}

function listMembers(room: Room, me: string): Member[] {
  const state = room.getLiveTimeline().getState(EventTimeline.FORWARDS);
  const myLevel = room.getMember(me)?.powerLevel ?? 0;
  const mayKick = state?.hasSufficientPowerLevelFor("kick", myLevel) === true;
  const rank = { admin: 0, moderator: 1, member: 2 };
  return room
    .getMembers()
    .filter((member) => member.membership === KnownMembership.Join || member.membership === KnownMembership.Invite)
    .map((member): Member => {
      const role = member.powerLevel >= 100 ? "admin" : member.powerLevel >= 50 ? "moderator" : "member";
      return {
        ...personOf(room, member.userId),
        membership: member.membership === KnownMembership.Join ? "joined" : "invited",
        role,
        self: member.userId === me,
        mayKick: mayKick && member.userId !== me && member.powerLevel < myLevel,
      };
    })
    .sort(
      (a, b) =>
        Number(a.membership === "invited") - Number(b.membership === "invited") ||
        rank[a.role] - rank[b.role] ||
        a.name.localeCompare(b.name),
    );
}
