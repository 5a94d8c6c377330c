/** Everything a signed-in person sees, over a session. The Matrix SDK comes with this module: it is loaded late. */
import {
  ClientEvent,
  EventType,
  type MatrixClient,
  MatrixEventEvent,
  RoomEvent,
  type RoomMember,
  RoomMemberEvent,
  RoomStateEvent,
} from "matrix-js-sdk";
import type { Confirm, Session } from "../sdk";
import { openAccount } from "./account";
import { blobCache } from "./attachments";
import { draftStore } from "./drafts";
import { shortName } from "./events";
import type { Chat, RoomSummary } from "./model";
import { type Cell, cell, derived } from "./observable";
import { type LiveRoom, openRoom } from "./room";
import { directRooms, order, summarize } from "./roomList";
import { type Uploads, uploads } from "./uploads";

const cacheBytes = 96 * 1024 * 1024;

export async function openChat(session: Session, confirm: Confirm, onSignOut: () => Promise<void>): Promise<Chat> {
  const { client, credentials } = session;
  const me = credentials.userId;
  const drafts = await draftStore(me);
  const blobs = blobCache(cacheBytes);
  const typing = new Map<string, Cell<ReadonlySet<string>>>();
  const sending = new Map<string, Uploads>();
  const loaded = cell(client.isInitialSyncComplete());
  let open: LiveRoom | null = null;
  let leave: () => void = () => undefined;

  const typingIn = (roomId: string): Cell<ReadonlySet<string>> =>
    at(typing, roomId, () => cell<ReadonlySet<string>>(new Set()));
  const known = new Map<string, RoomSummary>();

  /** The summary of before, where nothing in it has changed: rows that are the same are not drawn again. */
  function settled(summary: RoomSummary): RoomSummary {
    const before = known.get(summary.id);
    if (before !== undefined && JSON.stringify(before) === JSON.stringify(summary)) return before;
    known.set(summary.id, summary);
    return summary;
  }

  const rooms = derived<RoomSummary[]>(() => {
    const direct = directRooms(client);
    const list: RoomSummary[] = [];
    for (const room of client.getVisibleRooms()) {
      const summary = summarize(session, room, {
        direct,
        typing: typing.get(room.roomId)?.get(),
        draft: room.roomId !== open?.id && drafts.has(room.roomId),
      });
      if (summary !== null && summary.membership !== "left") list.push(settled(summary));
    }
    return list.sort(order);
  }, sameList);

  function changed(roomId: string | undefined): void {
    rooms.invalidate();
    if (roomId === undefined || open?.id === roomId) {
      open?.changed();
      open?.membersChanged();
    }
  }

  watch(client, {
    changed,
    loaded: () => loaded.set(true),
    typing(member) {
      const current = typingIn(member.roomId);
      const next = new Set(current.get());
      if (member.typing && member.userId !== me) next.add(member.userId);
      else next.delete(member.userId);
      current.set(next);
      rooms.invalidate();
    },
  });

  function room(id: string): LiveRoom {
    if (open?.id === id) return open;
    const summary = derived<RoomSummary | null>(() => {
      const listed = rooms.get().find((each) => each.id === id);
      const left = client.getRoom(id);
      if (listed !== undefined || left === null) return listed ?? null;
      return summarize(session, left, { direct: directRooms(client), typing: undefined, draft: false });
    }, sameSummary);
    leave();
    const end = rooms.subscribe(() => summary.invalidate());
    const opened = openRoom({
      session,
      roomId: id,
      summary,
      typing: typingIn(id),
      draft: drafts.of(id),
      uploads: at(sending, id, () => uploads(session, id)),
      blobs,
    });
    open = opened;
    leave = () => {
      end();
      opened.close();
    };
    rooms.invalidate();
    return opened;
  }

  async function signOut(): Promise<void> {
    await onSignOut(); // deletes the drafts too, unless somebody else's session needs them
    blobs.clear();
    drafts.close();
  }

  const user = client.getUser(me);
  return {
    me: {
      userId: me,
      name: user?.displayName === undefined || user.displayName === me ? shortName(me, me) : user.displayName,
    },
    server: me.slice(me.indexOf(":") + 1),
    deviceId: credentials.deviceId,
    rooms,
    connection: session.connection,
    loaded,
    room,
    async accept(roomId) {
      const inviter = client.getRoom(roomId)?.getDMInviter();
      await client.joinRoom(roomId);
      if (inviter !== undefined) await markDirect(client, inviter, roomId);
    },
    async decline(roomId) {
      await client.leave(roomId);
    },
    createDirect: (userId) => session.createDirect(userId),
    createGroup: (options) => session.createGroup(options),
    account: openAccount(session, confirm, signOut),
    signOut,
  };
}

function at<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

function sameList(a: RoomSummary[], b: RoomSummary[]): boolean {
  return a.length === b.length && a.every((summary, i) => summary === b[i]);
}

function sameSummary(a: RoomSummary | null, b: RoomSummary | null): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

interface Watcher {
  changed(roomId: string | undefined): void;
  loaded(): void;
  typing(member: RoomMember): void;
}

/** Whatever the SDK reports of a room makes what is shown of it stale; what is shown is computed once per turn. */
function watch(client: MatrixClient, { changed, loaded, typing }: Watcher): void {
  client.on(RoomEvent.Timeline, (_event, room) => changed(room?.roomId));
  client.on(RoomEvent.TimelineReset, (room) => changed(room?.roomId));
  client.on(RoomEvent.LocalEchoUpdated, (_event, room) => changed(room.roomId));
  client.on(RoomEvent.Redaction, (_event, room) => changed(room.roomId));
  client.on(RoomEvent.Receipt, (_event, room) => changed(room.roomId));
  client.on(RoomEvent.Name, (room) => changed(room.roomId));
  client.on(RoomEvent.MyMembership, (room) => changed(room.roomId));
  client.on(RoomStateEvent.Events, (event) => changed(event.getRoomId()));
  client.on(RoomMemberEvent.Typing, (_event, member) => typing(member));
  client.on(MatrixEventEvent.Decrypted, (event) => changed(event.getRoomId()));
  client.on(MatrixEventEvent.Replaced, (event) => changed(event.getRoomId()));
  client.on(ClientEvent.Room, (room) => changed(room.roomId));
  client.on(ClientEvent.DeleteRoom, (roomId) => changed(roomId));
  client.on(ClientEvent.AccountData, (event) => {
    if (event.getType() === String(EventType.Direct)) changed(undefined);
  });
  client.on(ClientEvent.Sync, (state) => {
    if (state !== "PREPARED" && state !== "SYNCING") return;
    loaded();
    changed(undefined);
  });
}

/** Notes that a room is a chat with one person, as the inviter's client has done on its side. */
async function markDirect(client: MatrixClient, userId: string, roomId: string): Promise<void> {
  const content = { ...(client.getAccountData(EventType.Direct)?.getContent() ?? {}) } as Record<string, string[]>;
  const list = Array.isArray(content[userId]) ? content[userId] : [];
  if (list.includes(roomId)) return;
  await client.setAccountData(EventType.Direct, { ...content, [userId]: [...list, roomId] });
}
