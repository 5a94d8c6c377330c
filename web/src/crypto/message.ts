/** The messages of a group session: im.conclave.group.v1. */
import { algorithmGroup, maxEnvelope, maxIndex, maxPlaintext, typeEncrypted } from "./bounds";
import { concat, fromBase64Exact, fromUtf8, toBase64, utf8, type Bytes } from "./encoding";
import { must, SealedError } from "./errors";
import { Form } from "./form";
import { canonical, isJsonObject, type JsonObject } from "./json";
import { paddedLength } from "./padding";
import { decryptGcm, encryptGcm, randomBytes, sign, verify } from "./primitives";
import { messageKey, stepRatchet } from "./ratchet";
import type { InboundSession } from "./roomkey";

const groupDomain = utf8("im.conclave.group.v1\0");
const zero = new Uint8Array([0]);
const saltLength = 16;

/** An encrypted event as a server delivered it, of which nothing is believed. */
export interface EncryptedEvent {
  eventId: string;
  /** The room in which it was found. */
  roomId: string;
  sender: string;
  type: string;
  content: string;
}

export interface DecryptedEvent {
  type: string;
  content: JsonObject;
  index: number;
}

/** What a message is made with: the state of an outbound session at one index, which no other message may use. */
export interface MessageSlot {
  roomId: string;
  sender: string;
  senderDevice: string;
  sessionId: string;
  signingKey: CryptoKey;
  ratchet: Bytes;
  index: number;
}

interface Message {
  device: string;
  session: string;
  index: number;
  salt: string;
  saltBytes: Bytes;
  ciphertext: Bytes;
  signature: string;
  relation: JsonObject | null;
}

/**
 * The text that is encrypted, padded, and what of it has to stand outside. Made before an index is used, so that content which cannot be
 * encrypted costs none.
 */
export interface Plaintext {
  text: Bytes;
  relation: JsonObject | null;
}

export function preparePlaintext(roomId: string, type: string, content: JsonObject): Plaintext {
  const relation = clearRelation(content);
  const text = utf8(canonical({ room_id: roomId, type, content }));
  const padded = new Uint8Array(paddedLength(text.length)).fill(0x20);
  padded.set(text);
  return { text: padded, relation };
}

/** Makes the content of the m.room.encrypted event. The caller has recorded the index as used, durably, before. */
export async function encryptMessage(slot: MessageSlot, plaintext: Plaintext): Promise<JsonObject> {
  must(slot.index < maxIndex, "oversize", "the session is used up");
  const saltBytes = randomBytes(saltLength);
  const salt = toBase64(saltBytes);
  const { key, nonce } = await messageKey(slot.ratchet, saltBytes);
  const aad = additionalData(
    slot.roomId,
    slot.sender,
    slot.senderDevice,
    slot.sessionId,
    slot.index,
    salt,
    plaintext.relation,
  );
  const ciphertext = await encryptGcm(key, nonce, aad, plaintext.text);
  const content: JsonObject = {
    algorithm: algorithmGroup,
    device_id: slot.senderDevice,
    session_id: slot.sessionId,
    index: slot.index,
    salt,
    ciphertext: toBase64(ciphertext),
    signature: await sign(slot.signingKey, concat(groupDomain, aad, zero, ciphertext)),
  };
  if (plaintext.relation) content["m.relates_to"] = plaintext.relation;
  return content;
}

/** The session and index that a message names, before anything about it is believed. Throws where it is none of ours. */
export function readMessageHeader(content: string): { sessionId: string; senderDevice: string; index: number } {
  const { session, device, index } = readMessage(content);
  return { sessionId: session, senderDevice: device, index };
}

/**
 * Opens an event. It succeeds only if the session came from a device of that same sender and is of this room, the session's key signed the
 * message, the tag holds, and the index was not seen on another event. The signature comes before anything is stepped or decrypted, so
 * that nobody but the sender can cause work. `seen` gives the event on which an index was seen; the caller records it afterwards.
 */
export async function decryptMessage(
  event: EncryptedEvent,
  find: (sessionId: string) => Promise<InboundSession | undefined>,
  seen: (sessionId: string, index: number) => Promise<string | undefined>,
): Promise<DecryptedEvent> {
  must(event.type === typeEncrypted, "malformed", "not an encrypted message");
  const message = readMessage(event.content);
  const session = await find(message.session);
  if (!session) throw new SealedError("no_key", "the session is not known");
  must(session.roomId === event.roomId, "wrong_room", "the session is of another room");
  must(
    session.sender === event.sender && session.senderDevice === message.device,
    "wrong_sender",
    "the session is of another sender",
  );
  must(message.index >= session.index, "unknown_index", "the session is known from a later index on");
  checkClearRelation(message.relation);
  const aad = additionalData(
    event.roomId,
    event.sender,
    message.device,
    message.session,
    message.index,
    message.salt,
    message.relation,
  );
  const signed = concat(groupDomain, aad, zero, message.ciphertext);
  must(await verify(message.session, message.signature, signed), "forged_signature", "the session's key did not sign");
  const first = await seen(message.session, message.index);
  must(first === undefined || first === event.eventId, "replayed_index", "the index was seen on another event");
  const ratchet = await stepRatchet(fromBase64Exact(session.ratchet, 32), message.index - session.index);
  const { key, nonce } = await messageKey(ratchet, message.saltBytes);
  const inner = readPlaintext(await decryptGcm(key, nonce, aad, message.ciphertext));
  must(inner.roomId === event.roomId, "wrong_room", "the encrypted event is of another room");
  checkRelation(inner.content, message.relation);
  must(
    inner.type !== typeEncrypted && inner.type !== "m.room.redaction",
    "unknown_type",
    `${inner.type} inside an encrypted event`,
  );
  return { type: inner.type, content: inner.content, index: message.index };
}

/** Members that it does not know are passed over: nothing authenticates them, and nothing is made of them. */
function readMessage(content: string): Message {
  const form = Form.read(content, maxEnvelope);
  form.algorithm(algorithmGroup);
  form.check();
  const message: Message = {
    device: form.name("device_id"),
    session: form.name("session_id"),
    index: form.integer("index"),
    salt: form.text("salt"),
    saltBytes: form.bytes("salt", saltLength),
    ciphertext: form.bytes("ciphertext"),
    signature: form.text("signature"),
    relation: form.has("m.relates_to") ? form.object("m.relates_to").members : null,
  };
  form.check();
  must(message.index < maxIndex, "oversize", `index ${message.index}`);
  must(message.ciphertext.length <= maxPlaintext + 16, "oversize", "a ciphertext longer than any plaintext");
  return message;
}

function readPlaintext(plaintext: Bytes): { roomId: string; type: string; content: JsonObject } {
  const form = Form.read(fromUtf8(plaintext), maxPlaintext);
  const inner = { roomId: form.name("room_id"), type: form.name("type"), content: form.object("content").members };
  form.check();
  return inner;
}

/** What the ciphertext is bound to: moved elsewhere, it no longer opens. */
function additionalData(
  roomId: string,
  sender: string,
  deviceId: string,
  sessionId: string,
  index: number,
  salt: string,
  relation: JsonObject | null,
): Bytes {
  return utf8(
    canonical({
      algorithm: algorithmGroup,
      room_id: roomId,
      sender,
      device_id: deviceId,
      session_id: sessionId,
      index,
      salt,
      relates_to: relation,
    }),
  );
}

/**
 * What has to stand outside of the encrypted content, so that servers can follow threads and edits: the kind and the other event, no more.
 * A reaction is outside a mere reference, so that no server counts emoji; a plain reply has nothing outside.
 */
function clearRelation(content: JsonObject): JsonObject | null {
  const relation = content["m.relates_to"];
  if (!isJsonObject(relation) || !Object.hasOwn(relation, "rel_type")) return null;
  const form = new Form(relation);
  const kind = form.name("rel_type");
  const eventId = form.name("event_id");
  form.check();
  return { rel_type: kind === "m.annotation" ? "m.reference" : kind, event_id: eventId };
}

function checkClearRelation(relation: JsonObject | null): void {
  if (relation === null) return;
  const form = new Form(relation);
  form.name("rel_type");
  form.name("event_id");
  try {
    form.check();
  } catch {
    throw new SealedError("altered_relation", "not a kind and an event");
  }
  must(form.isExactly("rel_type", "event_id"), "altered_relation", "more outside than may be seen");
}

/** The relation outside is exactly what the sender's own program would have put there. */
function checkRelation(content: JsonObject, clear: JsonObject | null): void {
  let want: JsonObject | null;
  try {
    want = clearRelation(content);
  } catch {
    throw new SealedError("altered_relation", "the encrypted relation is broken");
  }
  must(canonical(want) === canonical(clear), "altered_relation", "the relation outside is another");
}
