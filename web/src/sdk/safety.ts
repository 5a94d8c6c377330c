/** What a room promises at this moment: whether it is sealed, who cannot read, and whose identity has changed. */
import type { Room } from "matrix-js-sdk";
import type { Engine } from "./engine";
import { Value } from "./observable";
import type { Outbox } from "./outbox";
import type { Observable, RoomSafety } from "./types";

const gatherMs = 300;

export class Safety {
  private readonly rooms = new Map<string, { value: Value<RoomSafety>; members: Set<string> }>();
  private readonly timers = new Map<string, ReturnType<typeof setTimeout>>();
  private readonly unsubscribe: (() => void)[];

  constructor(
    private readonly engine: Engine,
    private readonly roomOf: (roomId: string) => Room | null,
    private readonly outbox: Outbox,
  ) {
    const look = (users: string[]): void => {
      for (const [roomId, { members }] of this.rooms) if (users.some((user) => members.has(user))) this.changed(roomId);
    };
    this.unsubscribe = [engine.people.onChange((userId) => look([userId])), engine.people.onStale(look)];
  }

  of(roomId: string): Observable<RoomSafety> {
    let room = this.rooms.get(roomId);
    if (!room) {
      const sealed = this.engine.marks.isSealed(roomId);
      room = { value: new Value<RoomSafety>({ sealed, withoutKeys: [], changed: [] }), members: new Set() };
      this.rooms.set(roomId, room);
      this.changed(roomId);
    }
    return room.value;
  }

  /** Something about a room that may be looked at changed: looks again soon. */
  changed(roomId: string): void {
    if (!this.rooms.has(roomId) || this.timers.has(roomId)) return;
    const timer = setTimeout(() => {
      this.timers.delete(roomId);
      // Without an answer nobody knows who cannot read: it is asked again.
      void this.outbox
        .run(
          `safety ${roomId}`,
          () => this.look(roomId),
          () => true,
        )
        .catch(() => undefined);
    }, gatherMs);
    this.timers.set(roomId, timer);
  }

  private async look(roomId: string): Promise<void> {
    const watched = this.rooms.get(roomId);
    const room = this.roomOf(roomId);
    if (!watched || !room) return;
    const sealed = this.engine.marks.isSealed(roomId);
    const users = sealed ? (await room.getEncryptionTargetMembers()).map((member) => member.userId) : [];
    watched.members = new Set(users);
    const { withoutKeys, changed } = await this.engine.people.holders(users);
    const safety: RoomSafety = { sealed, withoutKeys, changed };
    if (JSON.stringify(safety) !== JSON.stringify(watched.value.get())) watched.value.set(safety);
  }

  stop(): void {
    for (const end of this.unsubscribe) end();
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
  }
}
