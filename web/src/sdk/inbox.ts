/**
 * Sealed messages to this device. Each is kept, as it came, before the sync that brought it counts as done, and leaves the inbox in the same
 * transaction that stores what it held: a crash repeats work and loses nothing.
 */
import {
  maxEnvelope,
  openSealed,
  SealedError,
  typeEncrypted,
  typeRoomKey,
  canonical,
  isJsonObject,
  type FailureClass,
  type JsonObject,
  type OpenedMessage,
  type Receiver,
} from "../crypto";
import type { InboundSessions } from "./inbound";
import { recordName, type KeyStore } from "./keystore";
import type { OwnKeys } from "./own";
import type { People } from "./people";

const prefix = "inbox/";
/** Failures after which a message may still become good: the sender's identity is not known, or a change of it not accepted, yet. */
const waiting: ReadonlySet<FailureClass> = new Set(["no_identity", "identity_changed", "unsigned_device"]);
const maxWaiting = 1000;
const waitingMs = 30 * 24 * 3600 * 1000;
/** How often what waits is looked at when nothing is new. */
const againMs = 60_000;

export interface ToDeviceEvent {
  type: string;
  sender: string;
  content: JsonObject;
}

export class Inbox {
  private counter = 0;
  private drainedAt = 0;
  private draining: Promise<void> = Promise.resolve();

  constructor(
    private readonly store: KeyStore,
    private readonly people: People,
    private readonly own: OwnKeys,
    private readonly sessions: InboundSessions,
    /** Called when a session became readable, or readable from further back. */
    private readonly onSession: (sessionId: string) => void,
    /** What arrived sealed and is no key: signalling of calls. */
    private readonly onMessage: (message: OpenedMessage) => void,
  ) {}

  /** Keeps messages durably, in order. Gives back whether there were any. */
  async keep(events: ToDeviceEvent[]): Promise<boolean> {
    const put = events
      .filter((event) => event.type === typeEncrypted && canonical(event.content).length <= maxEnvelope)
      .map((event): [string, JsonObject] => [
        `${prefix}${String(Date.now()).padStart(15, "0")}-${String(this.counter++).padStart(9, "0")}`,
        { sender: event.sender, content: event.content, at: Date.now() },
      ]);
    if (put.length > 0) await this.store.write({ put });
    return put.length > 0;
  }

  /** After a sync: opens what came, and now and then what still waits. */
  async drainAfterSync(came: boolean): Promise<void> {
    if (came || Date.now() - this.drainedAt > againMs) await this.drain();
  }

  /** Opens what can be opened. One run at a time; a call during a run adds one after it. */
  drain(): Promise<void> {
    this.draining = this.draining.then(() => this.run()).catch(() => undefined);
    return this.draining;
  }

  private async run(): Promise<void> {
    this.drainedAt = Date.now();
    const kept = await this.store.list(prefix);
    const excess = kept.length - maxWaiting;
    for (const [i, [name, message]] of kept.entries()) {
      const age = typeof message.at === "number" ? Date.now() - message.at : 0;
      try {
        await this.take(name, message);
      } catch (error) {
        // Failures look alike from outside, and nothing is sent because of one.
        if (!(error instanceof SealedError)) throw error;
        const mayWait = waiting.has(error.failure) && age < waitingMs && i >= excess;
        if (!mayWait) await this.store.write({ remove: [name] });
      }
    }
  }

  private async take(name: string, message: JsonObject): Promise<void> {
    const sender = typeof message.sender === "string" ? message.sender : "";
    const content = isJsonObject(message.content) ? message.content : {};
    const event = { type: typeEncrypted, sender, content: canonical(content) };
    const opened = await openSealed(event, await this.receiver(), Math.floor(Date.now() / 1000));
    const { first } = await this.people.senderFacts(opened.sender, opened.senderDevice);
    if (first !== null && first.split(" ")[0] !== opened.senderKey) {
      throw new SealedError("device_changed", "the device was known with another key");
    }
    const change = { put: [[this.receivedName(opened.msgId), {}]] as [string, JsonObject][], remove: [name] };
    if (opened.type !== typeRoomKey) {
      await this.store.write(change);
      this.onMessage(opened);
      return;
    }
    const { senderDevice, senderKey } = opened;
    const session = await this.sessions.add(
      opened.content,
      { sender: opened.sender, senderDevice, senderKey, source: "direct" },
      change,
    );
    this.onSession(session.sessionId);
  }

  private async receiver(): Promise<Receiver> {
    const { userId, deviceId, exchange } = this.own.device;
    return {
      userId,
      deviceId,
      masterKey: await this.people.pinnedMaster(userId),
      formerMasterKeys: await this.people.formerMasters(userId),
      exchangeKey: (kid) => (kid === exchange.kid ? exchange.privateKey : undefined),
      lookup: (user, device) => this.people.senderFacts(user, device),
      isSeen: (msgId) => this.store.has(this.receivedName(msgId)),
    };
  }

  /** Ids are kept with the RSA key that opened the message, and forgotten with it. */
  private receivedName(msgId: string): string {
    return recordName("received", this.own.device.exchange.kid, msgId);
  }
}
