/** The parts of the encryption of one device, put together; and what tabs of one browser tell each other about it. */
import { isJsonObject, sealTo, SealedError, type JsonObject, type OpenedMessage } from "../crypto";
import type { Api } from "./api";
import { Healing, typeKeyRequest } from "./healing";
import { InboundSessions } from "./inbound";
import { Inbox, type ToDeviceEvent } from "./inbox";
import { recordName, type KeyStore } from "./keystore";
import { OutboundSessions } from "./outbound";
import { OwnKeys } from "./own";
import { People } from "./people";
import { RoomMarks } from "./roommarks";

const maxWithheld = 1000;

export interface EngineHooks {
  isJoined(roomId: string): boolean;
  /** A session became readable, or readable from further back. */
  onSession(sessionId: string): void;
  /** Something about a user's identity or devices changed, which may explain what of them is not readable. */
  onPerson(userId: string): void;
  onMessage(message: OpenedMessage): void;
}

interface TabNews {
  session?: string;
  person?: string;
}

export class Engine {
  private withheld = new Map<string, string>();
  private readonly tabs: BroadcastChannel;
  /** While another tab's news is taken in: it is not told back. */
  private hearing = false;

  private constructor(
    readonly api: Api,
    readonly store: KeyStore,
    readonly people: People,
    readonly own: OwnKeys,
    readonly marks: RoomMarks,
    readonly sessions: InboundSessions,
    readonly outbound: OutboundSessions,
    readonly inbox: Inbox,
    readonly healing: Healing,
    private readonly hooks: EngineHooks,
  ) {
    const { userId, deviceId } = api.credentials;
    this.tabs = new BroadcastChannel(`conclave/${recordName(userId, deviceId)}`);
    this.tabs.onmessage = (message: MessageEvent<TabNews>) => this.hear(message.data);
  }

  static async open(api: Api, store: KeyStore, hooks: EngineHooks): Promise<Engine> {
    const people = new People(api, store);
    const own = await OwnKeys.open(api, store, people);
    const marks = await RoomMarks.open(store);
    const sessions = new InboundSessions(store, hooks.isJoined);
    // The parts tell the engine, which exists only once they do; nothing happens before it does.
    const engine: { it?: Engine } = {};
    const onSession = (sessionId: string): void => engine.it?.gotSession(sessionId);
    const outbound = new OutboundSessions(api, store, people, own, onSession);
    const inbox = new Inbox(store, people, own, sessions, onSession, hooks.onMessage);
    const healing = new Healing(api, store, people, own, sessions);
    engine.it = new Engine(api, store, people, own, marks, sessions, outbound, inbox, healing, hooks);
    await engine.it.loadWithheld();
    people.onChange((userId) => engine.it?.personChanged(userId));
    return engine.it;
  }

  private hear(news: TabNews): void {
    if (news.session !== undefined) {
      this.sessions.forgetCached(news.session);
      this.hooks.onSession(news.session);
    }
    if (news.person !== undefined) {
      this.hearing = true;
      this.people.forgetCached(news.person);
      this.hearing = false;
    }
  }

  private gotSession(sessionId: string): void {
    this.hooks.onSession(sessionId);
    this.tabs.postMessage({ session: sessionId } satisfies TabNews);
  }

  private personChanged(userId: string): void {
    if (!this.hearing) this.tabs.postMessage({ person: userId } satisfies TabNews);
    this.hooks.onPerson(userId);
    // What waited for this person's identity may open now.
    void this.inbox.drain();
  }

  /** Takes the messages of one sync. Sealed ones are durable when this ends. Gives back what is none of this engine's business, and when they are opened. */
  async receive(events: ToDeviceEvent[]): Promise<{ rest: ToDeviceEvent[]; opened: Promise<void> }> {
    const came = await this.inbox.keep(events);
    for (const { type, sender, content } of events) {
      if (type === typeKeyRequest) void this.healing.answer(sender, content).catch(() => undefined);
      if (type === "m.room_key.withheld") await this.noteWithheld(sender, content);
    }
    // Keys and secrets in the clear are none: nothing of ours travels so, and secrets never go from device to device.
    const rest = events.filter(
      ({ type }) =>
        !/^m\.(room\.encrypted|room_key|room_key_request|room_key\.withheld|forwarded_room_key|secret\.)/.test(type),
    );
    return { rest, opened: this.inbox.drainAfterSync(came) };
  }

  private async loadWithheld(): Promise<void> {
    const stored = await this.store.get("withheld");
    for (const [sessionId, sender] of Object.entries(stored ?? {})) {
      if (typeof sender === "string") this.withheld.set(sessionId, sender);
    }
  }

  /** A hint that explains a missing key, and never stops a later one. */
  private async noteWithheld(sender: string, content: JsonObject): Promise<void> {
    const sessionId = content.session_id;
    if (typeof sessionId !== "string" || sessionId.length > 100 || this.withheld.has(sessionId)) return;
    this.withheld.set(sessionId, sender);
    if (this.withheld.size > maxWithheld) this.withheld = new Map([...this.withheld].slice(-maxWithheld));
    await this.store.put("withheld", Object.fromEntries(this.withheld));
    this.hooks.onSession(sessionId);
  }

  isWithheld(sessionId: string, sender: string): boolean {
    return this.withheld.get(sessionId) === sender;
  }

  /** Seals signalling of calls to named devices. One that does not qualify gets nothing, and the caller an error. */
  async seal(
    type: string,
    recipients: [userId: string, deviceId: string, content: JsonObject][],
  ): Promise<Record<string, JsonObject>> {
    const sender = await this.own.sender();
    const { devices } = await this.people.holders([...new Set(recipients.map(([userId]) => userId))]);
    const messages: Record<string, JsonObject> = {};
    for (const [userId, deviceId, content] of recipients) {
      const keys = devices.find((device) => device.userId === userId && device.deviceId === deviceId);
      if (!keys) throw new SealedError("unsigned_device", "the device may not receive keys");
      const master = await this.people.pinnedMaster(userId);
      const envelope = await sealTo(sender, keys, master, type, content, Math.floor(Date.now() / 1000));
      const others = messages[userId];
      messages[userId] = { ...(isJsonObject(others) ? others : {}), [deviceId]: envelope };
    }
    return messages;
  }

  async close(): Promise<void> {
    this.healing.stop();
    await this.sessions.flush().catch(() => undefined);
    this.tabs.close();
    this.store.close();
  }
}
