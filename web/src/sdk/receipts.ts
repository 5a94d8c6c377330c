/** Ticks: how far own messages came, and telling others how far theirs did. */
import type { MatrixEvent, Room } from "matrix-js-sdk";
import { isObject } from "./http";
import { recordName, type KeyStore } from "./keystore";

export const typeDelivered = "im.conclave.delivered";
/** Told once per room and moment, however many messages came. */
const gatherMs = 250;
/** In a hall nobody waits for ticks. */
const maxMembers = 100;

type Kind = "delivered" | "read";

/** The furthest event of each user, per room. */
class Marks {
  private readonly rooms = new Map<string, Map<string, string>>();

  get(roomId: string): Map<string, string> {
    const known = this.rooms.get(roomId);
    if (known) return known;
    const users = new Map<string, string>();
    this.rooms.set(roomId, users);
    return users;
  }
}

export class Receipts {
  private readonly marks: Record<Kind, Marks> = { delivered: new Marks(), read: new Marks() };
  private readonly held = new WeakMap<MatrixEvent, Record<string, unknown>>();
  private readonly timers = new Map<string, ReturnType<typeof setTimeout>>();
  private readonly told = new Map<string, string>();

  constructor(
    private readonly userId: string,
    private readonly store: KeyStore,
    private readonly send: (roomId: string, eventId: string) => Promise<void>,
  ) {}

  /** Takes our own type out of what the SDK sees of an m.receipt event: it would count any receipt of ours as having read. */
  split(content: unknown): { visible: Record<string, unknown>; all: Record<string, unknown> } {
    const all = isObject(content) ? content : {};
    const visible: Record<string, unknown> = {};
    for (const [eventId, types] of Object.entries(all)) {
      if (!isObject(types)) continue;
      const { [typeDelivered]: _ours, ...others } = types;
      if (Object.keys(others).length > 0) visible[eventId] = others;
    }
    return { visible, all };
  }

  /** Keeps the whole content of an event until the SDK says which room it is of. */
  hold(event: MatrixEvent, all: Record<string, unknown>): void {
    this.held.set(event, all);
  }

  /** The SDK has given the event to its room. */
  absorb(roomId: string, event: MatrixEvent): void {
    for (const [eventId, types] of Object.entries(this.held.get(event) ?? {})) {
      if (!isObject(types)) continue;
      this.note("delivered", roomId, eventId, types[typeDelivered]);
      this.note("read", roomId, eventId, types["m.read"]);
    }
    this.held.delete(event);
  }

  private note(kind: Kind, roomId: string, eventId: string, users: unknown): void {
    if (!isObject(users)) return;
    for (const user of Object.keys(users)) {
      if (user !== this.userId) this.marks[kind].get(roomId).set(user, eventId);
    }
  }

  /** Whether somebody else has an own event, or has read it. What is read was delivered. */
  reached(room: Room, event: MatrixEvent): Kind | null {
    if (this.isPast("read", room, event)) return "read";
    return this.isPast("delivered", room, event) ? "delivered" : null;
  }

  private isPast(kind: Kind, room: Room, event: MatrixEvent): boolean {
    const id = event.getId() ?? "";
    for (const marked of this.marks[kind].get(room.roomId).values()) {
      if (marked === id) return true;
      const order = room.getUnfilteredTimelineSet().compareEventOrdering(marked, id);
      if (order !== null && order > 0) return true;
    }
    return false;
  }

  /** Something in a room became readable: tells its senders soon, for the newest event that this device could read. */
  readable(room: Room): void {
    if (this.timers.has(room.roomId)) return;
    const timer = setTimeout(() => {
      this.timers.delete(room.roomId);
      void this.tell(room).catch(() => undefined);
    }, gatherMs);
    this.timers.set(room.roomId, timer);
  }

  private async tell(room: Room): Promise<void> {
    if (room.getMyMembership() !== "join" || room.getJoinedMemberCount() > maxMembers) return;
    const newest = room
      .getLiveTimeline()
      .getEvents()
      .findLast((event) => this.countsAsDelivered(event));
    const eventId = newest?.getId();
    if (!eventId) return;
    const name = recordName("delivered", room.roomId);
    const before = this.told.get(room.roomId) ?? (await this.store.get(name))?.event;
    if (before === eventId) return;
    this.told.set(room.roomId, eventId);
    try {
      await this.send(room.roomId, eventId);
    } catch (error) {
      this.told.delete(room.roomId);
      throw error;
    }
    await this.store.write({ put: [[name, { event: eventId }]] }, "relaxed");
  }

  private countsAsDelivered(event: MatrixEvent): boolean {
    if (event.isState() || event.getSender() === this.userId || event.isRedacted() || event.status !== null)
      return false;
    return !event.isEncrypted() || (!event.isBeingDecrypted() && !event.isDecryptionFailure());
  }

  stop(): void {
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
  }
}
