/**
 * The Matrix client with Sealed Rooms inside. A subclass rather than a fork: element access to the SDK's private field is checked by the
 * compiler, so an SDK that changes it does not build. (The SDK's own encryption, 7.6 MiB of wasm, is aliased away in vite.config.ts.)
 */
import {
  EventStatus,
  MatrixClient,
  MemoryStore,
  type IEvent,
  type ISendEventResponse,
  type MatrixEvent,
  type Room,
  type SendToDeviceContentMap,
} from "matrix-js-sdk";
import type { EventMapper, MapperOpts } from "matrix-js-sdk/lib/event-mapper.js";
import { logger, type Logger } from "matrix-js-sdk/lib/logger.js";
import type { QueryDict } from "matrix-js-sdk/lib/utils.js";
import { isJsonObject, SealedError, toJson, typeEncrypted, type JsonObject } from "../crypto";
import type { SealedBackend } from "./backend";
import type { Engine } from "./engine";
import { isObject } from "./http";
import { isPassing, type Outbox } from "./outbox";
import type { Receipts } from "./receipts";
import type { Transport } from "./transport";
import type { Credentials } from "./types";

/** The SDK writes identifiers, and errors with whatever is in them, to the console. Nobody asked it to. */
const quiet: Logger = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, getChild: () => quiet };
(logger as unknown as { setLevel(level: "silent", persist: boolean): void }).setLevel("silent", false);
// A child of the SDK's logger has a level of its own.
logger.getChild = () => quiet;

/** A request without an answer counts as lost after this; syncs and uploads have times of their own. */
const requestMs = 60_000;
/** Kinds of relation by which a plain event would change an encrypted one. */
const changing = new Set(["m.replace", "m.annotation", "m.reference"]);

export interface ClientParts {
  engine: Engine;
  backend: SealedBackend;
  outbox: Outbox;
  receipts: Receipts;
  transport: Transport;
}

export class ConclaveClient extends MatrixClient {
  private parts: ClientParts | undefined;

  constructor(credentials: Credentials, transport: Transport) {
    super({
      baseUrl: credentials.baseUrl,
      userId: credentials.userId,
      deviceId: credentials.deviceId,
      accessToken: credentials.accessToken,
      store: new MemoryStore(),
      fetchFn: transport.fetch,
      timelineSupport: true,
      localTimeoutMs: requestMs,
      useE2eForGroupCall: false,
      logger: quiet,
    });
  }

  attach(parts: ClientParts): void {
    this.parts = parts;
    this["cryptoBackend"] = parts.backend;
  }

  private get engine(): Engine {
    if (!this.parts) throw new Error("the client has no encryption yet");
    return this.parts.engine;
  }

  /** Every event of the server passes here before anything is made of it. */
  override getEventMapper(options?: MapperOpts): EventMapper {
    const mapper = super.getEventMapper(options);
    return (event) => {
      if (event.type !== "m.receipt" || !this.parts) return mapper(this.checked(event));
      const { visible, all } = this.parts.receipts.split(event.content);
      const mapped = mapper({ ...event, content: visible });
      this.parts.receipts.hold(mapped, all);
      return mapped;
    };
  }

  private checked(event: Partial<IEvent>): Partial<IEvent> {
    const roomId = event.room_id;
    if (!roomId || !this.parts) return event;
    if (event.type === "m.room.encryption" && event.state_key === "") {
      const algorithm: unknown = event.content?.algorithm;
      void this.engine.marks.mark(roomId, typeof algorithm === "string" ? algorithm : "").catch(() => undefined);
      return event;
    }
    if (!this.engine.marks.isEncrypted(roomId) || event.state_key !== undefined) return event;
    return withoutPlainChanges(event);
  }

  protected override encryptAndSendEvent(
    room: Room | null,
    event: MatrixEvent,
    delayOrQuery?: object,
    _query?: QueryDict,
  ): Promise<ISendEventResponse> {
    if (delayOrQuery && ("delay" in delayOrQuery || "parent_delay_id" in delayOrQuery)) {
      return Promise.reject(new Error("Delayed events travel unencrypted, and are not sent by this client."));
    }
    const { backend, outbox } = this.parts ?? {};
    if (!room || !backend || !outbox) return super.encryptAndSendEvent(room, event);
    const send = async (): Promise<ISendEventResponse> => {
      if (event.status === EventStatus.CANCELLED) throw new SealedError("malformed", "the message was withdrawn");
      if (event.status !== EventStatus.SENDING) this.updatePendingEventStatus(room, event, EventStatus.SENDING);
      await this.encryptReaction(room, event, backend);
      return super.encryptAndSendEvent(room, event);
    };
    if (outbox.isBusy(room.roomId)) this.updatePendingEventStatus(room, event, EventStatus.QUEUED);
    return outbox.run(room.roomId, send, () => event.status !== EventStatus.CANCELLED);
  }

  /** The SDK leaves reactions in the clear; here even the emoji is nobody's business. */
  private async encryptReaction(room: Room, event: MatrixEvent, backend: SealedBackend): Promise<void> {
    if (event.getType() !== "m.reaction" || event.isEncrypted() || !this.engine.marks.isEncrypted(room.roomId)) return;
    await backend.encryptEvent(event, room);
  }

  /** A message that only waits for the network has not failed. */
  protected override updatePendingEventStatus(room: Room | null, event: MatrixEvent, status: EventStatus): void {
    if (status !== EventStatus.NOT_SENT || !room || !isPassing(event.error)) {
      return super.updatePendingEventStatus(room, event, status);
    }
    if (event.status === EventStatus.ENCRYPTING) super.updatePendingEventStatus(room, event, EventStatus.SENDING);
    super.updatePendingEventStatus(room, event, EventStatus.QUEUED);
  }

  /** Signalling of calls is sealed: the SDK would send it in the clear. */
  override async sendToDevice(
    type: string,
    contents: SendToDeviceContentMap,
    txnId?: string,
  ): Promise<Record<string, never>> {
    if (!type.startsWith("m.call.")) return super.sendToDevice(type, contents, txnId);
    const recipients: [string, string, JsonObject][] = [];
    for (const [userId, devices] of contents) {
      for (const [deviceId, content] of devices) {
        const object = toJson(content);
        if (isJsonObject(object)) recipients.push([userId, deviceId, object]);
      }
    }
    const messages = await this.engine.seal(type, recipients);
    await this.engine.api.sendToDevice(typeEncrypted, messages, txnId);
    return {};
  }
}

/**
 * In an encrypted room a plain edit, reaction or vote changes nothing: what stands in the clear is shown by itself. Edits that a server bundles
 * with an event are left out too, as nobody has checked who they are by; the edit itself comes in the timeline.
 */
function withoutPlainChanges(event: Partial<IEvent>): Partial<IEvent> {
  const relations: unknown = event.unsigned?.["m.relations"];
  let checked = event;
  if (isObject(relations) && "m.replace" in relations) {
    const { "m.replace": _bundled, ...others } = relations;
    checked = { ...checked, unsigned: { ...event.unsigned, "m.relations": others } };
  }
  const content: unknown = event.content;
  if (event.type === typeEncrypted || !isObject(content)) return checked;
  const relation = content["m.relates_to"];
  if (!isObject(relation) || !changing.has(String(relation.rel_type))) return checked;
  const { "m.relates_to": _relation, ...rest } = content;
  return { ...checked, content: rest };
}
