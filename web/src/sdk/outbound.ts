/**
 * The sessions with which this device sends. Whoever holds the Web Lock owns them for the time of one message: two tabs share a device, and an
 * index must never be used twice. State is read from the database inside the lock, never from memory.
 */
import {
  canonical,
  encryptMessage,
  fromBase64Exact,
  generateSigningKey,
  isJsonObject,
  maxFanOutBytes,
  maxFanOutDevices,
  preparePlaintext,
  randomBytes,
  roomKeyContent,
  rotationReason,
  SealedError,
  sealTo,
  signOwnership,
  stepRatchet,
  toBase64,
  typeEncrypted,
  typeRoomKey,
  type DeviceKeys,
  type InboundSession,
  type JsonObject,
  type Sender,
} from "../crypto";
import type { Api } from "./api";
import { putSession } from "./inbound";
import { recordName, type KeyStore } from "./keystore";
import type { OwnKeys } from "./own";
import type { Holders, People } from "./people";

/** What an outbound session depends on in its room, as the client knows it at this moment. */
export interface RoomFacts {
  roomId: string;
  /** The content of m.room.encryption. */
  encryption: JsonObject;
  historyVisibility: string;
  /** Whatever else of the room's rules a session is bound to. */
  rules: JsonObject;
  /** Who may read, by user: the membership event, and the one that it replaced directly. */
  members: Map<string, { event: string; replaces: string }>;
}

interface Recipient {
  /** The device's Ed25519 key when it was given the session. */
  key: string;
  /** From which index. */
  index: number;
}

/** An outbound session, as stored. */
interface Outbound {
  sessionId: string;
  ratchet: string;
  index: number;
  createdAt: number;
  historyVisibility: string;
  /** Canonical text of the rules that the session was made under. */
  rules: string;
  proof: string;
  /** Users that it was meant for, with their membership event then. */
  members: Record<string, string>;
  /** Devices that have it, by `user device`. */
  recipients: Record<string, Recipient>;
  /** Users told that they get none. */
  withheld: string[];
}

/** What remains of a session that this device made: to whom it may be given again. */
export interface MadeSession {
  roomId: string;
  proof: string;
  recipients: Record<string, Recipient>;
}

const outName = (roomId: string): string => recordName("out", roomId);
const keyName = (roomId: string, sessionId: string): string => recordName("out", roomId, sessionId);
export const madeName = (sessionId: string): string => recordName("made", sessionId);
export const recipientName = (userId: string, deviceId: string): string => recordName(userId, deviceId);

function readRecipients(value: unknown): Record<string, Recipient> {
  const recipients: Record<string, Recipient> = {};
  for (const [name, entry] of Object.entries(isJsonObject(value as JsonObject) ? (value as JsonObject) : {})) {
    if (isJsonObject(entry) && typeof entry.key === "string" && typeof entry.index === "number") {
      recipients[name] = { key: entry.key, index: entry.index };
    }
  }
  return recipients;
}

export function readMade(stored: JsonObject): MadeSession {
  const { roomId, proof, recipients } = stored;
  return {
    roomId: typeof roomId === "string" ? roomId : "",
    proof: typeof proof === "string" ? proof : "",
    recipients: readRecipients(recipients),
  };
}

export class OutboundSessions {
  constructor(
    private readonly api: Api,
    private readonly store: KeyStore,
    private readonly people: People,
    private readonly own: OwnKeys,
    private readonly onMade: (sessionId: string) => void,
  ) {}

  /** Encrypts one event: everybody who may read has the key, durably, before the message exists. */
  async encrypt(room: RoomFacts, type: string, content: JsonObject): Promise<JsonObject> {
    const plaintext = preparePlaintext(room.roomId, type, content);
    return this.locked(room.roomId, async () => {
      const sender = await this.own.sender();
      const holders = await this.people.holders([...room.members.keys()]);
      this.refuseChangedPartner(room, holders);
      let session = await this.current(room, holders);
      session ??= await this.create(room);
      session = await this.share(room, session, sender, holders);
      const signingKey = await this.store.key(keyName(room.roomId, session.sessionId));
      if (!signingKey) throw new Error("the key of an own session is gone");
      const used = fromBase64Exact(session.ratchet, 32);
      const next = { ...session, index: session.index + 1, ratchet: toBase64(await stepRatchet(used)) };
      // Durable before anything is encrypted under it: after a crash the index is spent, never used again.
      await this.store.write({ put: [[outName(room.roomId), this.toRecord(next)]] });
      const { userId, deviceId } = this.own.device;
      const slot = {
        roomId: room.roomId,
        sender: userId,
        senderDevice: deviceId,
        sessionId: session.sessionId,
        signingKey,
        ratchet: used,
        index: session.index,
      };
      return encryptMessage(slot, plaintext);
    });
  }

  /** In a room of two, an identity that changed stops the conversation until the person has looked. */
  private refuseChangedPartner(room: RoomFacts, holders: Holders): void {
    const others = [...room.members.keys()].filter((user) => user !== this.own.device.userId);
    if (others.length === 1 && holders.changed.includes(others[0] ?? "")) {
      throw new SealedError("identity_changed", "the other's identity has changed");
    }
  }

  /** The session to go on with; undefined where a new one has to begin. */
  private async current(room: RoomFacts, holders: Holders): Promise<Outbound | undefined> {
    const session = await this.load(room.roomId);
    if (!session) return undefined;
    const present = new Map(
      holders.devices.map((device) => [recipientName(device.userId, device.deviceId), device.signing]),
    );
    const reason = rotationReason({
      messages: session.index,
      ageMs: Date.now() - session.createdAt,
      encryption: room.encryption,
      left: Object.keys(session.members).some((user) => !room.members.has(user)),
      limited: Object.entries(session.members).some(([user, event]) => {
        const member = room.members.get(user);
        return member !== undefined && member.event !== event && member.replaces !== event;
      }),
      lostHolder: Object.entries(session.recipients).some(([name, recipient]) => present.get(name) !== recipient.key),
      rulesChanged: session.historyVisibility !== room.historyVisibility || session.rules !== canonical(room.rules),
    });
    return reason === "" ? session : undefined;
  }

  private async create(room: RoomFacts): Promise<Outbound> {
    const { userId, deviceId, signing } = this.own.device;
    const key = await generateSigningKey();
    const ratchet = toBase64(randomBytes(32));
    const { roomId, historyVisibility } = room;
    const proof = await signOwnership(key.privateKey, roomId, historyVisibility, userId, signing.publicKey);
    const session: Outbound = {
      sessionId: key.publicKey,
      ratchet,
      index: 0,
      createdAt: Date.now(),
      historyVisibility,
      rules: canonical(room.rules),
      proof,
      members: {},
      recipients: {},
      withheld: [],
    };
    const inbound: InboundSession = {
      roomId,
      sessionId: key.publicKey,
      sender: userId,
      senderDevice: deviceId,
      senderKey: signing.publicKey,
      ratchet,
      index: 0,
      historyVisibility,
      source: "direct",
    };
    const former = await this.load(roomId);
    const change = {
      put: [
        [outName(roomId), this.toRecord(session)],
        [madeName(session.sessionId), { roomId, proof, recipients: {} }],
      ] as [string, JsonObject][],
      putKeys: [[keyName(roomId, session.sessionId), key.privateKey]] as [string, CryptoKey][],
      removeKeys: former ? [keyName(roomId, former.sessionId)] : [],
    };
    putSession(change, inbound);
    await this.store.write(change);
    this.onMade(session.sessionId);
    return session;
  }

  /** Gives the session, at its present index, to every key-holder that has it not. */
  private async share(room: RoomFacts, session: Outbound, sender: Sender, holders: Holders): Promise<Outbound> {
    const { userId, deviceId } = this.own.device;
    const missing = holders.devices.filter(
      (device) =>
        !(device.userId === userId && device.deviceId === deviceId) &&
        !Object.hasOwn(session.recipients, recipientName(device.userId, device.deviceId)),
    );
    let shared: Outbound = {
      ...session,
      members: Object.fromEntries([...room.members].map(([user, { event }]) => [user, event])),
    };
    for (const batch of await this.seal(shared, room.roomId, sender, missing)) {
      await this.api.sendToDevice(typeEncrypted, batch.messages);
      const recipients = { ...shared.recipients };
      for (const device of batch.devices) {
        recipients[recipientName(device.userId, device.deviceId)] = { key: device.signing, index: session.index };
      }
      shared = { ...shared, recipients };
      await this.saveRecipients(room.roomId, shared);
    }
    return this.withhold(room.roomId, shared, holders);
  }

  private async saveRecipients(roomId: string, session: Outbound): Promise<void> {
    const made = { roomId, proof: session.proof, recipients: this.recipientsRecord(session) };
    await this.store.write({
      put: [
        [outName(roomId), this.toRecord(session)],
        [madeName(session.sessionId), made],
      ],
    });
  }

  /** Seals the session to devices, in requests of bounded size. */
  private async seal(
    session: Outbound,
    roomId: string,
    sender: Sender,
    devices: DeviceKeys[],
  ): Promise<{ messages: Record<string, JsonObject>; devices: DeviceKeys[] }[]> {
    const content = await roomKeyContent(this.asInbound(session, roomId), session.proof, session.index);
    const batches: { messages: Record<string, JsonObject>; devices: DeviceKeys[] }[] = [];
    let bytes = maxFanOutBytes;
    for (const device of devices) {
      const master = await this.people.pinnedMaster(device.userId);
      const now = Math.floor(Date.now() / 1000);
      const envelope = await sealTo(sender, device, master, typeRoomKey, content, now);
      const size = canonical(envelope).length + device.userId.length + device.deviceId.length + 8;
      let batch = batches.at(-1);
      if (!batch || bytes + size > maxFanOutBytes || batch.devices.length >= maxFanOutDevices) {
        batch = { messages: {}, devices: [] };
        batches.push(batch);
        bytes = 0;
      }
      batch.messages[device.userId] = { ...batch.messages[device.userId], [device.deviceId]: envelope };
      batch.devices.push(device);
      bytes += size;
    }
    return batches;
  }

  /** Tells users without a qualifying device that they get no key. A hint: if it cannot be sent, the message still goes. */
  private async withhold(roomId: string, session: Outbound, holders: Holders): Promise<Outbound> {
    const untold = [...holders.withoutKeys, ...holders.changed].filter((user) => !session.withheld.includes(user));
    if (untold.length === 0) return session;
    const content: JsonObject = {
      algorithm: "im.conclave.group.v1",
      code: "m.unverified",
      reason: "No device of this user is signed by an identity that the sender knows.",
      room_id: roomId,
      session_id: session.sessionId,
      from_device: this.own.device.deviceId,
    };
    const messages = Object.fromEntries(untold.map((user): [string, JsonObject] => [user, { "*": content }]));
    try {
      await this.api.sendToDevice("m.room_key.withheld", messages);
    } catch {
      return session;
    }
    return { ...session, withheld: [...session.withheld, ...untold] };
  }

  /**
   * An own event was seen. If its index is not recorded as used, this profile was restored from an older copy, and the session ends: its
   * indexes may have been used by what was lost.
   */
  async observeOwn(roomId: string, sessionId: string, index: number): Promise<void> {
    const session = await this.load(roomId);
    if (!session || session.sessionId !== sessionId || index < session.index) return;
    await this.locked(roomId, () => this.discard(roomId, sessionId));
  }

  async discard(roomId: string, sessionId?: string): Promise<void> {
    const session = await this.load(roomId);
    if (!session || (sessionId !== undefined && session.sessionId !== sessionId)) return;
    await this.store.write({ remove: [outName(roomId)], removeKeys: [keyName(roomId, session.sessionId)] });
  }

  /** Runs with the session of a room owned by this tab alone. */
  private locked<T>(roomId: string, run: () => Promise<T>): Promise<T> {
    const { userId, deviceId } = this.own.device;
    return navigator.locks.request(`conclave/outbound/${recordName(userId, deviceId, roomId)}`, run) as Promise<T>;
  }

  private asInbound(session: Outbound, roomId: string): InboundSession {
    const { userId, deviceId, signing } = this.own.device;
    const { sessionId, ratchet, index, historyVisibility } = session;
    return {
      roomId,
      sessionId,
      sender: userId,
      senderDevice: deviceId,
      senderKey: signing.publicKey,
      ratchet,
      index,
      historyVisibility,
      source: "direct",
    };
  }

  private recipientsRecord(session: Outbound): JsonObject {
    return Object.fromEntries(Object.entries(session.recipients).map(([name, entry]) => [name, { ...entry }]));
  }

  private toRecord(session: Outbound): JsonObject {
    return { ...session, members: { ...session.members }, recipients: this.recipientsRecord(session) };
  }

  private async load(roomId: string): Promise<Outbound | undefined> {
    const stored = await this.store.get(outName(roomId));
    if (!stored) return undefined;
    const text = (name: string): string => (typeof stored[name] === "string" ? stored[name] : "");
    const number = (name: string): number => (typeof stored[name] === "number" ? stored[name] : 0);
    const members = isJsonObject(stored.members) ? stored.members : {};
    return {
      sessionId: text("sessionId"),
      ratchet: text("ratchet"),
      index: number("index"),
      createdAt: number("createdAt"),
      historyVisibility: text("historyVisibility"),
      rules: text("rules"),
      proof: text("proof"),
      members: Object.fromEntries(
        Object.entries(members).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
      ),
      recipients: readRecipients(stored.recipients),
      withheld: Array.isArray(stored.withheld) ? stored.withheld.filter((user) => typeof user === "string") : [],
    };
  }
}
