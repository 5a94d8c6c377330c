/** The engine behind the hooks that matrix-js-sdk offers to an encryption of its own. */
import {
  DecryptionError,
  type CryptoBackend,
  type EventDecryptionResult,
  type OnSyncCompletedData,
  type SyncCryptoChanges,
} from "matrix-js-sdk/lib/common-crypto/CryptoBackend.js";
import {
  DecryptionFailureCode,
  EventShieldColour,
  EventShieldReason,
  type EventEncryptionInfo,
} from "matrix-js-sdk/lib/crypto-api/index.js";
import type { MatrixEvent, Room } from "matrix-js-sdk";
import type { ReceivedToDeviceMessage } from "matrix-js-sdk/lib/sync-accumulator.js";
import {
  decryptMessage,
  isJsonObject,
  readMessageHeader,
  SealedError,
  toJson,
  type FailureClass,
  type JsonObject,
} from "../crypto";
import type { Engine } from "./engine";
import { roomFacts } from "./roomfacts";
import type { Failure } from "./types";
import { UnofferedCrypto } from "./unoffered";

/** How long a sync waits for keys that came with it, so that most messages are readable when they are first shown. */
const keyWaitMs = 2000;
const maxWaitingEvents = 5000;

const failures: Partial<Record<FailureClass, Failure>> = {
  unknown_algorithm: "unknown_algorithm",
  replayed_index: "replayed",
  forged_signature: "forged",
  wrong_sender: "forged",
  wrong_room: "forged",
  altered_relation: "forged",
  undecryptable: "forged",
  conflicting_session: "forged",
};

/** The codes of the SDK that come nearest; what is shown goes by `failureOf`. */
function sdkCode(failure: Failure): DecryptionFailureCode {
  if (failure === "before_join") return DecryptionFailureCode.HISTORICAL_MESSAGE_USER_NOT_JOINED;
  if (failure === "withheld") return DecryptionFailureCode.MEGOLM_KEY_WITHHELD;
  if (failure === "no_key") return DecryptionFailureCode.MEGOLM_UNKNOWN_INBOUND_SESSION_ID;
  if (failure === "unsigned_device") return DecryptionFailureCode.UNSIGNED_SENDER_DEVICE;
  return DecryptionFailureCode.UNKNOWN_ERROR;
}

export class SealedBackend extends UnofferedCrypto implements CryptoBackend {
  globalErrorOnUnknownDevices = false;
  globalBlacklistUnverifiedDevices = false;
  private readonly failed = new WeakMap<MatrixEvent, Failure>();
  private readonly waiting = new Map<string, Set<MatrixEvent>>();
  private waitingCount = 0;
  private readonly compared = new Set<string>();
  private readonly caughtUp = Promise.withResolvers<void>();

  constructor(
    private readonly engine: Engine,
    private readonly roomOf: (roomId: string) => Room | null,
  ) {
    super();
  }

  /** Why an event is not readable; null if it is, or was never tried. */
  failureOf(event: MatrixEvent): Failure | null {
    return this.failed.get(event) ?? null;
  }

  /** The first sync is through: what is sent from now on is sent to those who are members. */
  async whenCaughtUp(): Promise<void> {
    await this.caughtUp.promise;
  }

  // What the sync loop calls.

  async processSyncChanges(changes: SyncCryptoChanges): Promise<ReceivedToDeviceMessage[]> {
    const self = this.engine.own.device.userId;
    const changed = changes.deviceLists?.changed ?? [];
    this.engine.people.markChanged(changed);
    if (changed.includes(self)) void this.engine.own.check().catch(() => undefined);
    const events = changes.toDeviceEvents.map(({ type, sender, content }) => {
      const object = toJson(content);
      return { type, sender, content: isJsonObject(object) ? object : {} };
    });
    const { rest, opened } = await this.engine.receive(events);
    await Promise.race([opened, new Promise((resolve) => setTimeout(resolve, keyWaitMs))]);
    return rest.map((message) => ({ message, encryptionInfo: null }));
  }

  async onCryptoEvent(_room: Room, _event: MatrixEvent): Promise<void> {
    // The mapper of events has marked the room already, before anything in it was looked at.
  }

  onSyncCompleted(state: OnSyncCompletedData): void {
    if (!state.catchingUp) this.caughtUp.resolve();
  }

  async markAllTrackedUsersAsDirty(): Promise<void> {
    this.engine.people.markAllChanged();
  }

  // Sending.

  async isEncryptionEnabledInRoom(roomId: string): Promise<boolean> {
    return this.engine.marks.isEncrypted(roomId);
  }

  async isStateEncryptionEnabledInRoom(): Promise<boolean> {
    return false;
  }

  async encryptEvent(event: MatrixEvent, room: Room): Promise<void> {
    if (!this.engine.marks.isSealed(room.roomId)) {
      throw new SealedError("unknown_algorithm", "the room is encrypted in a way that this client does not write");
    }
    await this.caughtUp.promise;
    const content = toJson(event.getContent());
    if (!isJsonObject(content)) throw new SealedError("malformed", "an event without content");
    await this.compareWithTimeline(room);
    const wire = await this.engine.outbound.encrypt(await roomFacts(room), event.getType(), content);
    event.makeEncrypted("m.room.encrypted", wire, "", this.engine.own.device.signing.publicKey);
  }

  /**
   * Once per room and page, before the first message: a profile restored from an older copy knows less of its own sessions than the room's
   * timeline does, and must not go on with them.
   */
  private async compareWithTimeline(room: Room): Promise<void> {
    if (this.compared.has(room.roomId)) return;
    const { userId, deviceId } = this.engine.own.device;
    for (const event of room.getLiveTimeline().getEvents()) {
      const { device_id: device, session_id: sessionId, index }: JsonObject = event.getWireContent();
      if (event.getSender() !== userId || event.status !== null || device !== deviceId) continue;
      if (typeof sessionId !== "string" || typeof index !== "number") continue;
      await this.engine.outbound.observeOwn(room.roomId, sessionId, index);
    }
    this.compared.add(room.roomId);
  }

  prepareToEncrypt(_room: Room): void {
    // Keys are shared with the message that needs them: who types and does not send costs nobody anything.
  }

  async forceDiscardSession(roomId: string): Promise<void> {
    await this.engine.outbound.discard(roomId);
  }

  // Receiving.

  async decryptEvent(event: MatrixEvent): Promise<EventDecryptionResult> {
    try {
      const result = await this.open(event);
      this.failed.delete(event);
      return result;
    } catch (error) {
      if (!(error instanceof SealedError)) throw error;
      const failure = await this.explain(event, error.failure);
      this.failed.set(event, failure);
      throw new DecryptionError(sdkCode(failure), failure);
    }
  }

  private async open(event: MatrixEvent): Promise<EventDecryptionResult> {
    const { sessions, own, outbound } = this.engine;
    const eventId = event.getId() ?? "";
    const roomId = event.getRoomId() ?? "";
    const sender = event.getSender() ?? "";
    const text = JSON.stringify(event.getWireContent());
    const { sessionId, senderDevice } = readMessageHeader(text);
    const opened = await decryptMessage(
      { eventId, roomId, sender, type: event.getWireType(), content: text },
      (id) => sessions.find(id),
      (id, index) => sessions.seenOn(id, index),
    );
    if ((await sessions.claim(sessionId, opened.index, eventId)) !== eventId) {
      throw new SealedError("replayed_index", "the index was seen on another event");
    }
    if (sender === own.device.userId && senderDevice === own.device.deviceId) {
      await outbound.observeOwn(roomId, sessionId, opened.index);
    }
    this.checkEdit(roomId, sender, opened.type, opened.content);
    const session = await sessions.find(sessionId);
    return {
      clearEvent: { type: opened.type, content: opened.content },
      ...(session ? { claimedEd25519Key: session.senderKey } : {}),
    };
  }

  /** An edit is by its original's sender and of its type, where the original is at hand. */
  private checkEdit(roomId: string, sender: string, type: string, content: JsonObject): void {
    const relation = content["m.relates_to"];
    if (!isJsonObject(relation) || relation.rel_type !== "m.replace" || typeof relation.event_id !== "string") return;
    const original = this.roomOf(roomId)?.findEventById(relation.event_id);
    if (!original || original.isBeingDecrypted() || original.isDecryptionFailure()) return;
    const right = original.getSender() === sender && (original.getType() === type || original.isRedacted());
    if (!right) throw new SealedError("forged_signature", "an edit of another's event, or of another type");
  }

  private async explain(event: MatrixEvent, failure: FailureClass): Promise<Failure> {
    if (failure !== "no_key" && failure !== "unknown_index") return failures[failure] ?? "malformed";
    const sender = event.getSender() ?? "";
    const roomId = event.getRoomId() ?? "";
    const { sessionId, senderDevice } = readMessageHeader(JSON.stringify(event.getWireContent()));
    this.wait(sessionId, event);
    if (this.isBeforeJoin(event, roomId)) return "before_join";
    this.engine.healing.miss({ roomId, sessionId, sender, senderDevice });
    const doubt = await this.engine.people.doubt(sender, senderDevice);
    if (doubt) return doubt;
    return this.engine.isWithheld(sessionId, sender) ? "withheld" : "no_key";
  }

  private isBeforeJoin(event: MatrixEvent, roomId: string): boolean {
    const then = event.getMembershipAtEvent();
    if (then) return then !== "join" && then !== "invite";
    const own = this.roomOf(roomId)?.getMember(this.engine.own.device.userId)?.events.member;
    const previous = own?.getPrevContent().membership;
    return (
      own?.getContent().membership === "join" &&
      previous !== "join" &&
      event.getTs() < own.getTs() &&
      previous !== "invite"
    );
  }

  /** The SDK never retries a failed event by itself. */
  private wait(sessionId: string, event: MatrixEvent): void {
    if (this.waitingCount >= maxWaitingEvents) return;
    const events = this.waiting.get(sessionId) ?? new Set();
    this.waiting.set(sessionId, events);
    if (!events.has(event)) this.waitingCount++;
    events.add(event);
  }

  /** A session arrived, or something that explains its absence. */
  retry(sessionId: string): void {
    const events = this.waiting.get(sessionId);
    if (!events) return;
    this.waiting.delete(sessionId);
    this.waitingCount -= events.size;
    for (const event of events) this.again(event);
  }

  /** More is known of a user: what of theirs is not readable may be explained otherwise. */
  retryOf(userId: string): void {
    for (const events of this.waiting.values()) {
      for (const event of events) if (event.getSender() === userId) this.again(event);
    }
  }

  private again(event: MatrixEvent): void {
    if (!event.isDecryptionFailure()) return;
    void event.attemptDecryption(this, { isRetry: true }).catch(() => undefined);
  }

  async getEncryptionInfoForEvent(event: MatrixEvent): Promise<EventEncryptionInfo | null> {
    if (!event.isEncrypted()) return null;
    const failed = event.isDecryptionFailure();
    return {
      shieldColour: failed ? EventShieldColour.RED : EventShieldColour.NONE,
      shieldReason: failed ? EventShieldReason.UNKNOWN : null,
    };
  }

  async getOwnDeviceKeys(): Promise<{ ed25519: string; curve25519: string }> {
    return { ed25519: this.engine.own.device.signing.publicKey, curve25519: "" };
  }

  async userHasCrossSigningKeys(userId = this.engine.own.device.userId): Promise<boolean> {
    return (await this.engine.people.pinnedMaster(userId)) !== "";
  }

  async isCrossSigningReady(): Promise<boolean> {
    return this.engine.own.state.get() === "ready";
  }

  stop(): void {
    this.engine.healing.stop();
  }
}
