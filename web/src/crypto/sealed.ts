/** Sealed to-device messages: im.conclave.sealed.v1, a JWS inside a JWE, both of them jose's. */
import { CompactEncrypt, compactDecrypt, CompactSign, compactVerify } from "jose";
import { algorithmSealed, maxEnvelope, typeEncrypted, typeRoomKey } from "./bounds";
import { qualifyDevice, type DeviceKeys, type OwnDevice } from "./device";
import { fromBase64Url, fromUtf8, toBase64Url, utf8, type Bytes } from "./encoding";
import { must, SealedError } from "./errors";
import { Form } from "./form";
import type { Identity } from "./identity";
import { canonical, type JsonObject } from "./json";
import { importVerifyKey, randomBytes } from "./primitives";

const callAgeSeconds = 5 * 60;
const acceptedTypes = new Set([typeRoomKey, "im.conclave.history_request", "m.room_key_bundle"]);

/** Who seals: this device, with what proves that its owner's identity vouches for it. */
export interface Sender {
  device: OwnDevice;
  /** The published keys with the identity's signature: they serve when the device is gone. */
  deviceKeys: JsonObject;
  masterKey: string;
}

/** What is known of the device that a message says it comes from. */
export interface SenderFacts {
  identity: Identity;
  /** Its keys as the server gives them out now; null if the device is gone, and what came inside serves. */
  deviceKeys: string | null;
}

export interface Receiver {
  userId: string;
  deviceId: string;
  masterKey: string;
  /** Master keys that this user had before: what was sealed under them may still arrive. */
  formerMasterKeys: readonly string[];
  exchangeKey(kid: string): CryptoKey | undefined;
  /** Throws no_identity while the sender's cross-signing keys cannot be had: the message waits. */
  lookup(userId: string, deviceId: string): Promise<SenderFacts>;
  isSeen(msgId: string): Promise<boolean>;
}

/** A message of which the sender is proven. */
export interface OpenedMessage {
  type: string;
  content: JsonObject;
  msgId: string;
  sender: string;
  senderDevice: string;
  /** The Ed25519 key of the device, unpadded base64. */
  senderKey: string;
}

/** Makes the content of the m.room.encrypted to-device event that only this device can open. Its keys must have qualified. */
export async function sealTo(
  from: Sender,
  to: DeviceKeys,
  recipientMasterKey: string,
  type: string,
  content: JsonObject,
  nowSeconds: number,
): Promise<JsonObject> {
  const payload: JsonObject = {
    type,
    content,
    sender: from.device.userId,
    sender_device: from.device.deviceId,
    sender_device_keys: from.deviceKeys,
    sender_master_key: from.masterKey,
    recipient: to.userId,
    recipient_device: to.deviceId,
    recipient_kid: to.kid,
    recipient_master_key: recipientMasterKey,
    msg_id: toBase64Url(randomBytes(16)),
    iat: nowSeconds,
  };
  return sealPayload(from.device, to, payload);
}

/** Signs and encrypts a payload as it stands: for sealTo, and for test vectors, which also hold wrong ones. */
export async function sealPayload(device: OwnDevice, to: DeviceKeys, payload: JsonObject): Promise<JsonObject> {
  const jws = await new CompactSign(utf8(canonical(payload)))
    .setProtectedHeader({ alg: "EdDSA", kid: `ed25519:${device.deviceId}`, typ: algorithmSealed })
    .sign(device.signing.privateKey);
  const ciphertext = await new CompactEncrypt(utf8(jws))
    .setProtectedHeader({ alg: "RSA-OAEP-256", enc: "A256GCM", kid: to.kid, cty: "JWT" })
    .encrypt(to.exchangeKey);
  const envelope = { algorithm: algorithmSealed, sender_device: device.deviceId, ciphertext };
  must(canonical(envelope).length <= maxEnvelope, "oversize", "the envelope is too large");
  return envelope;
}

/**
 * Opens a message and accepts it only if it was sealed for this device of this user under this identity, is signed by a device that
 * qualifies under the pinned identity of the user that the server names as sender, and was not received before. All names are compared
 * after decryption, never from the envelope. A caller lets no failure be seen from outside.
 */
export async function openSealed(
  event: { type: string; sender: string; content: string },
  receiver: Receiver,
  nowSeconds: number,
): Promise<OpenedMessage> {
  must(event.type === typeEncrypted, "malformed", "not an encrypted message");
  const envelope = Form.read(event.content);
  envelope.algorithm(algorithmSealed);
  const ciphertext = envelope.text("ciphertext");
  envelope.name("sender_device");
  envelope.check();
  const { jws, kid } = await decrypt(ciphertext, receiver);
  const payload = readSigned(jws);
  must(payload.sender === event.sender, "wrong_sender", "not the sender of the event");
  const from = await checkSender(payload, receiver);
  await verifySignature(jws, from);
  checkRecipient(payload, kid, receiver);
  must(!(await receiver.isSeen(payload.msgId)), "replayed_message", "the message was received before");
  const isCall = payload.type.startsWith("m.call.");
  must(isCall || acceptedTypes.has(payload.type), "unknown_type", "nothing of this type travels sealed");
  must(!isCall || nowSeconds - payload.iat < callAgeSeconds, "expired", "the call is over");
  return {
    type: payload.type,
    content: payload.content,
    msgId: payload.msgId,
    sender: from.userId,
    senderDevice: from.deviceId,
    senderKey: from.signing,
  };
}

/** The header is held to the one form first: libraries inflate `zip` and pass over `jwk` in silence. */
async function decrypt(compact: string, receiver: Receiver): Promise<{ jws: string; kid: string }> {
  const parts = splitCompact(compact, 5);
  const { kid } = readHeader(parts[0], { alg: "RSA-OAEP-256", enc: "A256GCM", cty: "JWT" });
  must(parts[2]?.length === 12 && parts[4]?.length === 16, "malformed", "nonce or tag has another length");
  const key = receiver.exchangeKey(kid);
  if (!key) throw new SealedError("wrong_recipient", "not a key of this device");
  let plaintext: Uint8Array;
  try {
    const opened = await compactDecrypt(compact, key, {
      keyManagementAlgorithms: ["RSA-OAEP-256"],
      contentEncryptionAlgorithms: ["A256GCM"],
    });
    plaintext = opened.plaintext;
  } catch {
    throw new SealedError("undecryptable", "the message does not open");
  }
  return { jws: fromUtf8(plaintext), kid };
}

interface Payload {
  type: string;
  content: JsonObject;
  sender: string;
  senderDevice: string;
  senderDeviceKeys: JsonObject;
  senderMasterKey: string;
  recipient: string;
  recipientDevice: string;
  recipientKid: string;
  recipientMasterKey: string;
  msgId: string;
  iat: number;
}

function readSigned(jws: string): Payload {
  const [header, body] = splitCompact(jws, 3);
  const { kid } = readHeader(header, { alg: "EdDSA", typ: algorithmSealed });
  const form = Form.read(fromUtf8(body ?? new Uint8Array()));
  const senderDevice = form.members.sender_device;
  must(
    kid === `ed25519:${typeof senderDevice === "string" ? senderDevice : ""}`,
    "altered_header",
    "signed by another device",
  );
  const payload: Payload = {
    type: form.name("type"),
    content: form.object("content").members,
    sender: form.name("sender"),
    senderDevice: form.name("sender_device"),
    senderDeviceKeys: form.object("sender_device_keys").members,
    senderMasterKey: form.name("sender_master_key"),
    recipient: form.name("recipient"),
    recipientDevice: form.name("recipient_device"),
    recipientKid: form.name("recipient_kid"),
    recipientMasterKey: form.name("recipient_master_key"),
    msgId: form.name("msg_id"),
    iat: form.integer("iat"),
  };
  form.check();
  return payload;
}

async function checkSender(payload: Payload, receiver: Receiver): Promise<DeviceKeys> {
  const { identity, deviceKeys } = await receiver.lookup(payload.sender, payload.senderDevice);
  const inside = await qualifyDevice(
    canonical(payload.senderDeviceKeys),
    payload.sender,
    payload.senderDevice,
    identity,
  );
  must(payload.senderMasterKey === identity.master, "identity_changed", "the message names another master key");
  if (deviceKeys !== null) {
    const current = await qualifyDevice(deviceKeys, payload.sender, payload.senderDevice, identity).catch(() => null);
    const same = current !== null && current.signing === inside.signing && current.exchange === inside.exchange;
    must(same, "device_changed", "the device is known with other keys");
  }
  must(!inside.dehydrated, "dehydrated_sender", "a dehydrated device only receives");
  return inside;
}

async function verifySignature(jws: string, from: DeviceKeys): Promise<void> {
  const key = await importVerifyKey(from.signing);
  try {
    await compactVerify(jws, key, { algorithms: ["EdDSA"] });
  } catch {
    throw new SealedError("forged_signature", "the device did not sign the message");
  }
}

/** The sender meant this device, by all its names: nobody who was sent a message can seal it on. */
function checkRecipient(payload: Payload, kid: string, receiver: Receiver): void {
  const meant =
    payload.recipient === receiver.userId &&
    payload.recipientDevice === receiver.deviceId &&
    payload.recipientKid === kid;
  must(meant, "wrong_recipient", "signed for another");
  const ours =
    payload.recipientMasterKey === receiver.masterKey || receiver.formerMasterKeys.includes(payload.recipientMasterKey);
  must(ours, "foreign_identity", "sealed under an identity that never was this user's");
}

function splitCompact(compact: string, count: number): Bytes[] {
  const parts = compact.split(".");
  must(parts.length === count, "malformed", `not ${count} parts`);
  return parts.map(fromBase64Url);
}

function readHeader(header: Bytes | undefined, constants: Record<string, string>): { kid: string } {
  let form: Form;
  try {
    form = Form.read(fromUtf8(header ?? new Uint8Array()));
  } catch (error) {
    throw new SealedError("altered_header", String(error));
  }
  const { kid } = form.members;
  const right = Object.entries(constants).every(([name, value]) => form.members[name] === value);
  if (!right || typeof kid !== "string" || !form.isExactly("kid", ...Object.keys(constants))) {
    throw new SealedError("altered_header", "not the members and constants of this protocol");
  }
  return { kid };
}
