/** The ratchet of a group session: it steps forward only, and each value gives the key of one message. */
import { algorithmGroup } from "./bounds";
import { utf8, type Bytes } from "./encoding";
import { hkdfSha256, hmacSha256 } from "./primitives";

const stepData = new Uint8Array([2]);
const info = utf8(algorithmGroup);

export async function stepRatchet(ratchet: Bytes, steps = 1): Promise<Bytes> {
  let value = ratchet;
  for (let i = 0; i < steps; i++) value = await hmacSha256(value, stepData);
  return value;
}

export async function messageKey(ratchet: Bytes, salt: Bytes): Promise<{ key: Bytes; nonce: Bytes }> {
  const okm = await hkdfSha256(ratchet, salt, info, 44);
  return { key: okm.slice(0, 32), nonce: okm.slice(32) };
}
