/** How far the person has read, told to the server until it has it: of each room the newest mark, and nothing after a newer one. */
import type { Outbox } from "./outbox";

export class ReadMarkers {
  /** The newest mark of each room that the server does not have yet. */
  private readonly wanted = new Map<string, string>();

  constructor(
    private readonly outbox: Outbox,
    private readonly send: (roomId: string, eventId: string) => Promise<void>,
  ) {}

  /**
   * Ends when the server has the mark or refuses it. Where an earlier one of the room is still on its way, or waits for the connection, this
   * one goes in its place, and there is nothing to wait for.
   */
  async tell(roomId: string, eventId: string): Promise<void> {
    const underWay = this.wanted.has(roomId);
    this.wanted.set(roomId, eventId);
    if (underWay) return;
    try {
      for (let told: string | undefined; told !== this.wanted.get(roomId);) {
        const attempt = async (): Promise<void> => {
          told = this.wanted.get(roomId) ?? "";
          await this.send(roomId, told);
        };
        // What the server refuses says nothing of a newer one.
        await this.outbox
          .run(`read ${roomId}`, attempt, () => true)
          .catch((error: unknown) => {
            if (told === this.wanted.get(roomId)) throw error;
          });
      }
    } finally {
      this.wanted.delete(roomId);
    }
  }
}
