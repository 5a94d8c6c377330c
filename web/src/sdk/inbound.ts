/** The sessions of others (and the own ones, to read them again) that this device holds, and which of their indexes it has seen. */
import {
  maxSessions,
  maxSessionsUnjoined,
  mergeSessions,
  readRoomKey,
  SealedError,
  canonical,
  type InboundSession,
  type JsonObject,
  type SessionOrigin,
} from "../crypto";
import { recordName, type Change, type KeyStore } from "./keystore";

/** Sessions kept ready in memory; the rest is read when it is needed. */
const cachedSessions = 500;

function readSession(stored: JsonObject): InboundSession {
  const text = (name: string): string => (typeof stored[name] === "string" ? stored[name] : "");
  return {
    roomId: text("roomId"),
    sessionId: text("sessionId"),
    sender: text("sender"),
    senderDevice: text("senderDevice"),
    senderKey: text("senderKey"),
    ratchet: text("ratchet"),
    index: typeof stored.index === "number" ? stored.index : 0,
    historyVisibility: text("historyVisibility"),
    source: stored.source === "vouched" ? "vouched" : "direct",
  };
}

const sessionName = (sessionId: string): string => recordName("in", sessionId);
/** Beside each session an empty record, so that sessions are counted without being decrypted. */
const heldName = (session: InboundSession): string =>
  recordName("held", session.sender, session.roomId, session.sessionId);

/** Adds a session to a change, with the record that counts it. */
export function putSession(change: Change, session: InboundSession): void {
  (change.put ??= []).push([sessionName(session.sessionId), { ...session }], [heldName(session), {}]);
}

export class InboundSessions {
  private readonly cache = new Map<string, InboundSession>();
  private readonly seen = new Map<string, Map<number, string>>();
  private readonly unwritten = new Set<string>();
  private writing: Promise<void> = Promise.resolve();

  constructor(
    private readonly store: KeyStore,
    private readonly isJoined: (roomId: string) => boolean,
  ) {}

  async find(sessionId: string): Promise<InboundSession | undefined> {
    const cached = this.cache.get(sessionId);
    if (cached) return cached;
    const stored = await this.store.get(sessionName(sessionId));
    if (!stored) return undefined;
    const session = readSession(stored);
    this.remember(session);
    return session;
  }

  /**
   * Takes the content of a room key and writes it, together with what else the caller has to record. Gives back the session as it is held
   * afterwards.
   */
  async add(content: JsonObject, origin: SessionOrigin, change: Change): Promise<InboundSession> {
    const fresh = await readRoomKey(canonical(content), origin);
    this.cache.delete(fresh.sessionId);
    const known = await this.find(fresh.sessionId);
    if (!known) await this.checkCount(fresh);
    const held = known ? await mergeSessions(known, fresh) : fresh;
    putSession(change, held);
    await this.store.write(change);
    this.remember(held);
    return held;
  }

  /** Bounds how much others can make a device hold. */
  private async checkCount(session: InboundSession): Promise<void> {
    const ofSender = `${recordName("held", session.sender)}/`;
    const inRoom = `${recordName("held", session.sender, session.roomId)}/`;
    const names = await this.store.names(this.isJoined(session.roomId) ? inRoom : ofSender);
    if (names.filter((name) => name.startsWith(inRoom)).length >= maxSessions) {
      throw new SealedError("oversize", "too many sessions of one sender in one room");
    }
    if (this.isJoined(session.roomId)) return;
    const unjoined = names.filter(
      (name) => !this.isJoined(decodeURIComponent(name.slice(ofSender.length).split("/")[0] ?? "")),
    );
    if (unjoined.length >= maxSessionsUnjoined) {
      throw new SealedError("oversize", "too many sessions of one sender for rooms not joined");
    }
  }

  private remember(session: InboundSession): void {
    if (this.cache.size >= cachedSessions) {
      const oldest = this.cache.keys().next().value;
      if (oldest !== undefined) this.cache.delete(oldest);
    }
    this.cache.set(session.sessionId, session);
  }

  /** Another tab wrote this session. */
  forgetCached(sessionId: string): void {
    this.cache.delete(sessionId);
    if (!this.unwritten.has(sessionId)) this.seen.delete(sessionId);
  }

  /** The event on which an index was seen. */
  async seenOn(sessionId: string, index: number): Promise<string | undefined> {
    return (await this.seenOf(sessionId)).get(index);
  }

  private async seenOf(sessionId: string): Promise<Map<number, string>> {
    const known = this.seen.get(sessionId);
    if (known) return known;
    const stored = await this.store.get(recordName("seen", sessionId));
    const again = this.seen.get(sessionId);
    if (again) return again;
    const seen = new Map<number, string>();
    for (const [index, eventId] of Object.entries(stored ?? {})) {
      if (typeof eventId === "string") seen.set(Number(index), eventId);
    }
    this.seen.set(sessionId, seen);
    return seen;
  }

  /**
   * Claims an index for an event, in one step with looking it up: two events that are decrypted at the same time cannot both have it. Gives
   * back the event that has it. Written soon after; losing the last moments in a crash lets nothing be read twice that both servers and
   * the session's own maker did not sign.
   */
  async claim(sessionId: string, index: number, eventId: string): Promise<string> {
    const seen = await this.seenOf(sessionId);
    const first = seen.get(index);
    if (first !== undefined) return first;
    seen.set(index, eventId);
    this.unwritten.add(sessionId);
    this.writing = this.writing.then(() => this.flush()).catch(() => undefined);
    return eventId;
  }

  /** Writes what was claimed; several claims share one transaction. */
  async flush(): Promise<void> {
    const sessions = [...this.unwritten];
    if (sessions.length === 0) return;
    this.unwritten.clear();
    const put = sessions.map((sessionId): [string, JsonObject] => [
      recordName("seen", sessionId),
      Object.fromEntries([...(this.seen.get(sessionId) ?? [])].map(([index, eventId]) => [String(index), eventId])),
    ]);
    try {
      await this.store.write({ put }, "relaxed");
    } catch (error) {
      sessions.forEach((sessionId) => this.unwritten.add(sessionId));
      throw error;
    }
  }
}
