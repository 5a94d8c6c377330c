/** One signed-in device, as the pages see it. */
import {
  ClientEvent,
  EventStatus,
  HttpApiEvent,
  MatrixEventEvent,
  PendingEventOrdering,
  Preset,
  RoomEvent,
  RoomStateEvent,
  type MatrixEvent,
  type Room,
} from "matrix-js-sdk";
import { algorithmGroup, type JsonObject } from "../crypto";
import { AccountCare } from "./account";
import { Api } from "./api";
import { prepareFile, readFile } from "./attachments";
import { SealedBackend } from "./backend";
import { ConclaveClient } from "./client";
import { Engine } from "./engine";
import { KeyStore, recordName } from "./keystore";
import { ReadMarkers } from "./markers";
import type { Value } from "./observable";
import { Outbox, outgoing } from "./outbox";
import { Receipts, typeDelivered } from "./receipts";
import { Safety } from "./safety";
import { deviceDatabase, forgetSession, saveSession } from "./saved";
import { endingOf, Transport, type TransportOptions } from "./transport";
import type {
  Credentials,
  Delivery,
  DeviceStanding,
  Ending,
  Failure,
  IdentityState,
  NewIdentity,
  Observable,
  ReadAttachmentOptions,
  RoomSafety,
  SendFileOptions,
  Session,
} from "./types";
import type { Confirm } from "./uia";

const typingMs = 20_000;
const roomWaitMs = 15_000;
const pollMs = 30_000;

/** Only tests give another. */
export interface SessionOptions {
  transport?: TransportOptions;
}

export async function createSession(credentials: Credentials, options: SessionOptions = {}): Promise<Session> {
  await saveSession(credentials);
  const store = await KeyStore.open(deviceDatabase(credentials));
  const transport = new Transport(credentials, options.transport);
  const client = new ConclaveClient(credentials, transport);
  const api = new Api(credentials, (ending) => transport.end(ending));
  const late: { backend?: SealedBackend } = {};
  const engine = await Engine.open(api, store, {
    isJoined: (roomId) => client.getRoom(roomId)?.getMyMembership() === "join",
    onSession: (sessionId) => late.backend?.retry(sessionId),
    onPerson: (userId) => late.backend?.retryOf(userId),
    onMessage: (message) => {
      const { type, content, sender, senderDevice } = message;
      client.emit(ClientEvent.ReceivedToDeviceMessage, {
        message: { type, content, sender },
        encryptionInfo: { sender, senderDevice, senderCurve25519KeyBase64: "", senderVerified: true },
      });
    },
  });
  late.backend = new SealedBackend(engine, (roomId) => client.getRoom(roomId));
  return new ConclaveSession(credentials, client, engine, late.backend, transport);
}

class ConclaveSession implements Session {
  readonly identity: Observable<IdentityState>;
  readonly connection: Value<"connecting" | "live" | "polling" | "offline">;
  readonly ended: Observable<Ending | null>;
  private readonly outbox: Outbox;
  private readonly receipts: Receipts;
  private readonly markers: ReadMarkers;
  private readonly safety: Safety;
  private started = false;

  constructor(
    readonly credentials: Credentials,
    readonly client: ConclaveClient,
    private readonly engine: Engine,
    private readonly backend: SealedBackend,
    private readonly transport: Transport,
  ) {
    this.identity = engine.own.state;
    this.connection = transport.connection;
    this.ended = transport.ended;
    this.outbox = new Outbox(engine.store);
    this.receipts = new Receipts(credentials.userId, engine.store, (roomId, eventId) =>
      this.sendDelivered(roomId, eventId),
    );
    this.markers = new ReadMarkers(this.outbox, (roomId, eventId) => this.sendMarker(roomId, eventId));
    this.safety = new Safety(engine, (roomId) => client.getRoom(roomId), this.outbox);
    client.attach({ engine, backend, outbox: this.outbox, receipts: this.receipts, transport });
    this.listen();
  }

  private listen(): void {
    const { client } = this;
    client.on(HttpApiEvent.SessionLoggedOut, (error) => this.transport.end(endingOf(error.data) ?? "signed_out"));
    client.on(RoomEvent.Timeline, (event, room) => {
      if (room && !event.status) this.receipts.readable(room);
    });
    client.on(RoomEvent.Receipt, (event, room) => this.receipts.absorb(room.roomId, event));
    client.on(MatrixEventEvent.Decrypted, (event) => {
      const room = client.getRoom(event.getRoomId());
      if (room && !event.isDecryptionFailure()) this.receipts.readable(room);
    });
    client.on(RoomStateEvent.Members, (event) => this.safety.changed(event.getRoomId() ?? ""));
    this.connection.subscribe(() => {
      if (["live", "polling"].includes(this.connection.get())) this.outbox.wake();
    });
  }

  createIdentity(password?: string, confirm?: Confirm): Promise<NewIdentity> {
    return this.engine.own.create(password, confirm);
  }

  account(confirm: Confirm): AccountCare {
    return new AccountCare(this.engine.api, confirm);
  }

  ownDevices(): Promise<Map<string, DeviceStanding>> {
    return this.engine.people.standings(this.credentials.userId);
  }

  unlock(recoveryKey: string): Promise<void> {
    return this.engine.own.unlock(recoveryKey);
  }

  async start(): Promise<void> {
    if (this.started) return;
    this.started = true;
    // Asked for once, in the hope that the browser never clears what cannot be had again.
    void globalThis.navigator.storage?.persist?.().catch(() => undefined);
    void this.publish();
    void this.sendLeft();
    await this.client.startClient({
      initialSyncLimit: 20,
      lazyLoadMembers: true,
      pendingEventOrdering: PendingEventOrdering.Detached,
      pollTimeout: pollMs,
      includeArchivedRooms: false,
      disablePresence: false,
    });
  }

  /** Publishes the device's keys, again and again where the server cannot be reached. */
  private async publish(): Promise<void> {
    await this.outbox
      .run(
        "",
        () => this.engine.own.publish(),
        () => this.ended.get() === null,
      )
      .catch(() => this.ended.get() !== null || console.error("this device's keys could not be published"));
    await this.engine.inbox.drain();
  }

  /** Sends what an earlier page left, in one tab only. */
  private async sendLeft(): Promise<void> {
    const { userId, deviceId } = this.credentials;
    const left = await this.outbox.left();
    if (left.length === 0) return;
    await this.backend.whenCaughtUp();
    const name = `conclave/outbox/${recordName(userId, deviceId)}`;
    await navigator.locks.request(name, { ifAvailable: true }, async (lock) => {
      if (!lock) return;
      const sent = left.map(async ({ roomId, txnId, type, content }) => {
        const room = this.client.getRoom(roomId);
        if (room?.getMyMembership() !== "join") return this.outbox.forget(txnId);
        return this.dispatch(roomId, txnId, type, content).catch(() => undefined);
      });
      await Promise.all(sent);
    });
  }

  async createDirect(userId: string): Promise<string> {
    const known = this.existingDirect(userId);
    if (known) return known;
    const roomId = await this.createRoom({ preset: Preset.TrustedPrivateChat, invite: [userId], is_direct: true });
    const direct = (await this.engine.api.accountData("m.direct")) ?? {};
    const rooms = Array.isArray(direct[userId]) ? direct[userId] : [];
    await this.engine.api.setAccountData("m.direct", { ...direct, [userId]: [...rooms, roomId] });
    return roomId;
  }

  /** A sealed room of two with this person that both are in, or are on their way into. */
  private existingDirect(userId: string): string | null {
    const direct: unknown = this.client.getAccountData("m.direct" as never)?.getContent()[userId];
    for (const roomId of Array.isArray(direct) ? direct : []) {
      if (typeof roomId !== "string" || !this.isSealed(roomId)) continue;
      const room = this.client.getRoom(roomId);
      const other = room?.getMember(userId)?.membership ?? "";
      if (room?.getMyMembership() === "join" && ["join", "invite"].includes(other)) return roomId;
    }
    return null;
  }

  createGroup({ name, invite }: { name: string; invite: string[] }): Promise<string> {
    return this.createRoom({ preset: Preset.PrivateChat, name, invite });
  }

  private async createRoom(options: Parameters<ConclaveClient["createRoom"]>[0]): Promise<string> {
    const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: algorithmGroup } };
    const { room_id: roomId } = await this.client.createRoom({ ...options, initial_state: [encryption] });
    await this.engine.marks.mark(roomId, algorithmGroup);
    await this.roomAppears(roomId);
    return roomId;
  }

  private async roomAppears(roomId: string): Promise<void> {
    if (this.client.getRoom(roomId) || !this.started) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.client.off(ClientEvent.Room, seen);
        resolve();
      };
      const seen = (room: Room): void => {
        if (room.roomId === roomId) end();
      };
      const timer = setTimeout(end, roomWaitMs);
      this.client.on(ClientEvent.Room, seen);
    });
  }

  isSealed(roomId: string): boolean {
    return this.engine.marks.isSealed(roomId);
  }

  async sendText(roomId: string, body: string, replyTo?: string): Promise<void> {
    const reply = replyTo === undefined ? {} : { "m.relates_to": { "m.in_reply_to": { event_id: replyTo } } };
    await this.send(roomId, "m.room.message", outgoing({ msgtype: "m.text", body, ...reply }));
  }

  private async send(roomId: string, type: string, content: JsonObject): Promise<void> {
    const txnId = crypto.randomUUID();
    // A browser that cannot keep it, because it has no room left, must not swallow it: only a reload would lose it now.
    await this.outbox.keep(roomId, txnId, type, content).catch(() => undefined);
    await this.dispatch(roomId, txnId, type, content);
  }

  private async dispatch(roomId: string, txnId: string, type: string, content: JsonObject): Promise<void> {
    const sent = this.client.sendEvent(roomId, null, type as never, { ...content } as never, txnId);
    const event = this.pending(roomId, `~${roomId}:${txnId}`);
    try {
      await sent;
    } catch (error) {
      // The SDK holds a message back while an earlier one has failed; each stands for itself here.
      const heldBack = event?.status === EventStatus.NOT_SENT && !event.error;
      const room = this.client.getRoom(roomId);
      if (!heldBack || !room) throw error;
      await this.client.resendEvent(event, room);
    }
    await this.outbox.forget(txnId);
  }

  private pending(roomId: string, localId: string): MatrixEvent | undefined {
    return this.client
      .getRoom(roomId)
      ?.getPendingEvents()
      .find((event) => event.getId() === localId);
  }

  async resend(roomId: string, localId: string): Promise<void> {
    const room = this.client.getRoom(roomId);
    const event = this.pending(roomId, localId);
    if (!room || event?.status !== EventStatus.NOT_SENT) return this.outbox.wake();
    await this.client.resendEvent(event, room);
    await this.outbox.forget(event.getTxnId() ?? "");
  }

  discard(roomId: string, localId: string): void {
    const event = this.pending(roomId, localId);
    if (!event || event.status === EventStatus.SENDING) return;
    const txnId = event.getTxnId() ?? "";
    this.client.cancelPendingEvent(event);
    this.outbox.wake();
    void this.outbox.forget(txnId);
  }

  async sendFile(roomId: string, file: File, options: SendFileOptions): Promise<void> {
    if (!this.isSealed(roomId)) throw new Error("not_sealed");
    const content = await prepareFile(this.client, file, options);
    options.signal.throwIfAborted();
    // From here on it is a message like any other, which says itself what becomes of it and can be sent again.
    void this.send(roomId, "m.room.message", content).catch(() => undefined);
  }

  readAttachment(event: MatrixEvent, options: ReadAttachmentOptions): Promise<Blob> {
    return readFile(this.client, event, options, this.isSealed(event.getRoomId() ?? ""));
  }

  failure(event: MatrixEvent): Failure | null {
    if (event.isDecryptionFailure()) return this.backend.failureOf(event) ?? "malformed";
    const inTheClear = !event.isEncrypted() && !event.isState() && !event.isRedaction() && !event.isRedacted();
    const marked = inTheClear && event.status === null && this.isSealed(event.getRoomId() ?? "");
    return marked ? "not_encrypted" : null;
  }

  delivery(event: MatrixEvent): Delivery {
    const { status } = event;
    if (status === EventStatus.NOT_SENT || status === EventStatus.CANCELLED) return "failed";
    if (status !== null && status !== EventStatus.SENT) return "sending";
    const room = this.client.getRoom(event.getRoomId());
    return (room && this.receipts.reached(room, event)) ?? "sent";
  }

  roomSafety(roomId: string): Observable<RoomSafety> {
    return this.safety.of(roomId);
  }

  async acceptIdentity(userId: string): Promise<void> {
    await this.engine.people.accept(userId);
    await this.engine.inbox.drain();
  }

  async markRead(roomId: string, eventId: string): Promise<void> {
    if (!this.client.getRoom(roomId)?.findEventById(eventId)?.status) await this.markers.tell(roomId, eventId);
  }

  private async sendMarker(roomId: string, eventId: string): Promise<void> {
    await this.client.setRoomReadMarkers(roomId, eventId, this.client.getRoom(roomId)?.findEventById(eventId));
  }

  async typing(roomId: string, on: boolean): Promise<void> {
    await this.client.sendTyping(roomId, on, typingMs);
  }

  private async sendDelivered(roomId: string, eventId: string): Promise<void> {
    const path = `/rooms/${encodeURIComponent(roomId)}/receipt/${typeDelivered}/${encodeURIComponent(eventId)}`;
    const { baseUrl, accessToken } = this.credentials;
    // By the transport, and so by the socket while there is one.
    const response = await this.transport.fetch(`${baseUrl}/_matrix/client/v3${path}`, {
      method: "POST",
      body: "{}",
      headers: { Authorization: `Bearer ${accessToken}`, "Content-Type": "application/json" },
    });
    if (!response.ok) throw new Error("the receipt was not taken");
  }

  async close(): Promise<void> {
    this.outbox.stop();
    this.receipts.stop();
    this.safety.stop();
    this.client.stopClient();
    this.transport.stop();
    await this.engine.close();
  }

  async logOut(): Promise<void> {
    this.outbox.stop();
    // The server is told first; if it cannot be reached, this browser forgets all the same.
    await this.engine.api.call("POST", "/logout", { body: {} }).catch(() => undefined);
    await this.close();
    await forgetSession(this.credentials);
    this.transport.end("signed_out");
  }
}
