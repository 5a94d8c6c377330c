/** Which rooms are encrypted. Once seen so, a room stays so for this device, with that algorithm, whatever its state says later. */
import { algorithmGroup, type JsonObject } from "../crypto";
import { recordName, type KeyStore } from "./keystore";

const prefix = "room/";

export class RoomMarks {
  private constructor(
    private readonly store: KeyStore,
    private readonly algorithms: Map<string, string>,
  ) {}

  static async open(store: KeyStore): Promise<RoomMarks> {
    const marks = new Map<string, string>();
    for (const [name, { algorithm }] of await store.list(prefix)) {
      marks.set(decodeURIComponent(name.slice(prefix.length)), typeof algorithm === "string" ? algorithm : "");
    }
    return new RoomMarks(store, marks);
  }

  isEncrypted(roomId: string): boolean {
    return this.algorithms.has(roomId);
  }

  isSealed(roomId: string): boolean {
    return this.algorithms.get(roomId) === algorithmGroup;
  }

  /** Marks a room; the first algorithm stands. It counts at once and is durable soon after. */
  mark(roomId: string, algorithm: string): Promise<void> {
    if (this.algorithms.has(roomId)) return Promise.resolve();
    this.algorithms.set(roomId, algorithm);
    const record: JsonObject = { algorithm };
    return this.store.put(recordName("room", roomId), record);
  }
}
