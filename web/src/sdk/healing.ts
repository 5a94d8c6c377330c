/**
 * A key that was lost on its way heals itself: the reader asks the device that made the session, and that device answers only those whom it
 * recorded as entitled, from the index they were entitled from. Nobody forwards other people's keys.
 */
import {
  algorithmGroup,
  isJsonObject,
  roomKeyContent,
  sealTo,
  typeEncrypted,
  typeRoomKey,
  type JsonObject,
} from "../crypto";
import type { Api } from "./api";
import type { InboundSessions } from "./inbound";
import { recordName, type KeyStore } from "./keystore";
import { madeName, readMade, recipientName } from "./outbound";
import type { OwnKeys } from "./own";
import type { People } from "./people";

export const typeKeyRequest = "m.room_key_request";
const hourMs = 3600 * 1000;
/** How long a key may be on its way before it is asked for. */
const patienceMs = 5000;
/** Questions waiting at the same time: a timeline full of unreadable events does not become a flood. */
const maxOpen = 50;

export interface MissingSession {
  roomId: string;
  sessionId: string;
  sender: string;
  senderDevice: string;
}

export class Healing {
  private readonly open = new Map<string, ReturnType<typeof setTimeout>>();

  constructor(
    private readonly api: Api,
    private readonly store: KeyStore,
    private readonly people: People,
    private readonly own: OwnKeys,
    private readonly sessions: InboundSessions,
    private readonly patience = patienceMs,
  ) {}

  /** Asks for a session that is still missing in a moment, at most hourly. */
  miss(missing: MissingSession): void {
    if (this.open.has(missing.sessionId) || this.open.size >= maxOpen) return;
    const timer = setTimeout(() => {
      void this.ask(missing)
        .catch(() => undefined)
        .finally(() => this.open.delete(missing.sessionId));
    }, this.patience);
    this.open.set(missing.sessionId, timer);
  }

  stop(): void {
    for (const timer of this.open.values()) clearTimeout(timer);
    this.open.clear();
  }

  private async ask({ roomId, sessionId, sender, senderDevice }: MissingSession): Promise<void> {
    const { userId, deviceId } = this.own.device;
    if (this.own.state.get() !== "ready" || (sender === userId && senderDevice === deviceId)) return;
    if (await this.sessions.find(sessionId)) return;
    if (!(await this.spend(recordName("asked", sessionId)))) return;
    const content: JsonObject = {
      action: "request",
      request_id: crypto.randomUUID(),
      requesting_device_id: deviceId,
      body: { algorithm: algorithmGroup, room_id: roomId, session_id: sessionId },
    };
    await this.api.sendToDevice(typeKeyRequest, { [sender]: { [senderDevice]: content } });
  }

  /** Answers a request, or does nothing: nothing about a refusal is to be seen from outside. */
  async answer(requester: string, content: JsonObject): Promise<void> {
    const { body, requesting_device_id: device } = content;
    if (content.action !== "request" || !isJsonObject(body) || typeof device !== "string") return;
    const { session_id: sessionId, room_id: roomId, algorithm } = body;
    if (algorithm !== algorithmGroup || typeof sessionId !== "string" || typeof roomId !== "string") return;
    const stored = await this.store.get(madeName(sessionId));
    if (!stored) return;
    const made = readMade(stored);
    const name = recipientName(requester, device);
    const entitled = Object.hasOwn(made.recipients, name) ? made.recipients[name] : undefined;
    if (!entitled || made.roomId !== roomId) return;
    const { devices } = await this.people.holders([requester]);
    const keys = devices.find((held) => held.deviceId === device && held.signing === entitled.key);
    const session = await this.sessions.find(sessionId);
    if (!keys || !session || !(await this.spend(recordName("answered", sessionId, name)))) return;
    const room = await roomKeyContent(session, made.proof, entitled.index);
    const master = await this.people.pinnedMaster(requester);
    const sender = await this.own.sender();
    const envelope = await sealTo(sender, keys, master, typeRoomKey, room, Math.floor(Date.now() / 1000));
    await this.api.sendToDevice(typeEncrypted, { [requester]: { [device]: envelope } });
  }

  /** Once an hour, over all tabs and starts. */
  private async spend(name: string): Promise<boolean> {
    const last = (await this.store.get(name))?.at;
    if (typeof last === "number" && Date.now() - last < hourMs && last <= Date.now()) return false;
    await this.store.put(name, { at: Date.now() });
    return true;
  }
}
