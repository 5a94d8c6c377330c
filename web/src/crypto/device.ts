/** The keys of a device: its own, and those of other devices, which count only if their owner's identity vouches for them. */
import { algorithmGroup, algorithmSealed } from "./bounds";
import { fromBase64, type Bytes } from "./encoding";
import { must, SealedError } from "./errors";
import { Form } from "./form";
import type { Identity } from "./identity";
import type { JsonObject } from "./json";
import {
  decodeVerifyKey,
  exchangeKeyId,
  generateExchangeKey,
  generateSigningKey,
  importExchangeKey,
  type ExchangeKey,
  type SigningKey,
} from "./primitives";
import { checkSignature, signObject } from "./signing";

/** This device, with private keys that cannot be taken out. */
export interface OwnDevice {
  userId: string;
  deviceId: string;
  signing: SigningKey;
  exchange: ExchangeKey;
}

/** The public keys of a device that qualified. */
export interface DeviceKeys {
  userId: string;
  deviceId: string;
  /** Unpadded base64, Ed25519. */
  signing: string;
  /** Unpadded base64 of the SPKI. */
  exchange: string;
  exchangeKey: CryptoKey;
  kid: string;
  /** Receives only: what it signs is refused. */
  dehydrated: boolean;
}

export async function createDevice(userId: string, deviceId: string): Promise<OwnDevice> {
  must(!looksLikeKey(deviceId), "bad_device_id", "the device id could be taken for a public key");
  const [signing, exchange] = await Promise.all([generateSigningKey(), generateExchangeKey()]);
  return { userId, deviceId, signing, exchange };
}

/** The `device_keys` object for /keys/upload, signed by the device itself. */
export async function publicDeviceKeys(device: OwnDevice): Promise<JsonObject> {
  const object: JsonObject = {
    user_id: device.userId,
    device_id: device.deviceId,
    algorithms: [algorithmSealed, algorithmGroup],
    keys: {
      [`ed25519:${device.deviceId}`]: device.signing.publicKey,
      [`rsa-oaep-256:${device.deviceId}`]: device.exchange.publicKey,
    },
  };
  return signObject(object, device.userId, `ed25519:${device.deviceId}`, device.signing.privateKey);
}

/**
 * Reads device keys that a server gave out, and accepts them only if the device signed them itself and its owner's identity, which the
 * caller has checked against the pin, vouches for them.
 */
export async function qualifyDevice(
  text: string,
  userId: string,
  deviceId: string,
  identity: Identity,
): Promise<DeviceKeys> {
  const { keys, object } = await readDeviceKeys(text, userId, deviceId);
  const own = await checkSignature(object, userId, `ed25519:${deviceId}`, keys.signing);
  must(own === "valid", "forged_signature", "the device did not sign its keys");
  const vouched = await checkSignature(object, userId, `ed25519:${identity.selfSigning}`, identity.selfSigning);
  must(vouched === "valid", "unsigned_device", "the owner's identity did not sign the device");
  return keys;
}

/** Checks everything about device keys but their signatures. */
async function readDeviceKeys(
  text: string,
  userId: string,
  deviceId: string,
): Promise<{ keys: DeviceKeys; object: JsonObject }> {
  const form = Form.read(text);
  const owner = form.name("user_id");
  const id = form.name("device_id");
  const algorithms = form.texts("algorithms");
  const keys = form.object("keys");
  form.object("signatures");
  const dehydrated = form.has("dehydrated") ? form.members.dehydrated : false;
  if (typeof dehydrated !== "boolean") form.fail("malformed", '"dehydrated" is neither true nor false');
  form.check();
  must(owner === userId && id === deviceId, "wrong_device", "the keys of another device");
  must(!looksLikeKey(deviceId), "bad_device_id", "the device id could be taken for a public key");
  must(
    algorithms.includes(algorithmSealed) && algorithms.includes(algorithmGroup),
    "unknown_algorithm",
    "the device does not read sealed rooms",
  );
  const signing = keys.text(`ed25519:${deviceId}`);
  const exchange = keys.text(`rsa-oaep-256:${deviceId}`);
  const spki = keys.bytes(`rsa-oaep-256:${deviceId}`);
  keys.check();
  decodeVerifyKey(signing);
  const exchangeKey = await importExchangeKey(spki);
  const kid = await exchangeKeyId(spki);
  return {
    keys: { userId, deviceId, signing, exchange, exchangeKey, kid, dehydrated: dehydrated === true },
    object: form.members,
  };
}

/** Signatures name keys by "ed25519:" and an id, where the id of a cross-signing key is the key itself. */
export function looksLikeKey(deviceId: string): boolean {
  let bytes: Bytes;
  try {
    bytes = fromBase64(deviceId);
  } catch (error) {
    if (error instanceof SealedError) return false;
    throw error;
  }
  return bytes.length === 32;
}
